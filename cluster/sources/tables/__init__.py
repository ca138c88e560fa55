"""Images that a table lists, or holds.

* `files`: the files that an address means
* `roles`: which column of a table says what
* `values`: what a listing takes of a table's columns
* `lists`: tables in text, such as CSV and JSON lines
* `parquet_files`: Parquet files, here or on a store
* `arrow_files`: Arrow files, and where in them a picture's bytes are
* `pictures`: a listing of tables that hold pictures
* `cells`: a picture in a row of a Parquet file
"""
