"""`report`: one page that shows a run: galleries, plots, tables. The run is only read.

* `config`: its flags
* `driver`: what `jobs` calls: digest, choice of images, page
* `replica`: some shards in, their digest out
* `digest`: what shards come to: counts, and the images that each gallery would show; digests are added up
* `galleries`: which galleries there are, and which images belong there
* `cards`: the chosen images: their rows, small pictures, maps
* `plots`: records to inline SVG and tables
* `records`: what a page is made of
* `page`: records to HTML
"""
