"""`report`: a run as one HTML file.

* `colours`: the heat's colour maps
* `page/`: what the file is made of. `maps.js` enlarges and normalises maps, `boxes.js` boxes and colours them
"""
