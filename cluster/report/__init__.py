"""`report`: one page that shows a run: galleries, plots, tables. The run is only read.

* `config`: its flags
* `driver`: what `jobs` calls: digest, choice of images, page
* `replica`: some shards in, their digest out
* `digest`: what shards come to: counts, and the images that each gallery would show; digests are added up
* `galleries`: which galleries there are, and which images belong there
* `suspects`: labels that are suspected to be wrong, as a gallery
* `judged`: what an audit adds: figures, the worst images, true boxes
* `against`: another run, and the images that changed most
* `shown`: which images the page shows, of all galleries
* `cards`: the shown images: their rows, small pictures, maps
* `facts`: what the page says of run and classes
* `commands`: lines to copy
* `plots`: records to inline SVG and tables
* `records`: what a page is made of
* `colours`: the heat's colour maps
* `page`: records to HTML; what it is made of lies in the folder `page/`
* `bound`: at most 12 MB
* `destination`: where the page goes
"""
