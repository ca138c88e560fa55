"""What `COMMAND --help` shows: examples first, then the flags that one needs; `--help-all` lists all, with defaults."""

LABEL = """
  python -m jobs label --images photos/ --labels folder --out run/ \\
      --class-names classes.csv --model resnet50 --weights resnet50.safetensors
  python -m jobs label --images photos/ --model timm:convnext_tiny --out run/
  python -m jobs label --images s3://bucket/photos/ --out s3://bucket/run/ \\
      --model net.py:make --mean 0.5 0.5 0.5 --std 0.5 0.5 0.5

  --images PLACE ...     pictures: a folder, a manifest, tar files, Parquet, ...
  --out RUN              run directory to make; the same command resumes it
  --model NAME           torchvision's or timm:NAME, hf:FOLDER, FILE.py:function
  --weights FILE         the network's weights; DEFAULT may download
  --labels WHERE         none, folder, manifest, tar or FILE.csv
  --class-names FILE     the classes, in the order of the network's outputs
  --limit N              only the first images; --sample F: only a fraction
  --threshold T ...      where a box ends; --calibration FILE: what was fitted
  --replicas N           how many networks at a time; --device, --precision
  --overwrite, --repair  begin anew; do damaged shards again
  --config FILE          YAML with any of these flags
"""

REBOX = """
  python -m jobs rebox run/ --out run-0.3/ --threshold 0.3
  python -m jobs rebox run/ --out run-fitted/ --calibration calibration.json

  RUN                    complete run whose maps are taken; it is not changed
  --out NEW              run directory to make, or to resume
  --threshold T ...      fraction of the map's peak where a box ends
  --normalise HOW        max, minmax or ivr:P
  --components WHICH     largest, all or peaks
  --min-area F           smallest region, as a fraction of the picture
  --calibration FILE     what `calibrate` wrote, instead of the four above
  --overwrite, --repair  begin anew; do damaged shards again
  --json                 one JSON document on stdout
  --config FILE          YAML with any of these flags
"""

AUDIT = """
  python -m jobs audit run/
  python -m jobs audit run/ --truth annotations.json
  python -m jobs audit run/ --truth voc/ --class-map cat=281 dog=207 --json

  RUN                    complete run; the audit goes to its folder audit/
  --truth PLACE          COCO, CSV, LOC CSV, VOC, YOLO, masks, wsolevaluation
  --truth-format NAME    where that cannot be told from the files
  --class-map WORD=CLASS what the truth's words for classes mean, or a CSV file
  --calibrate F          choose a threshold on a share of the images
  --bootstrap N          replicates that the intervals are made from
  --json                 metrics.json on stdout instead of the table
  --config FILE          YAML with any of these flags
"""

CALIBRATE = """
  python -m jobs calibrate run/ --truth boxes.csv --out calibration.json
  python -m jobs rebox run/ --out run-fitted/ --calibration calibration.json

  RUN                    run with maps of the images' true classes
  --truth PLACE          true boxes of some of its images, as of `audit`
  --out FILE             calibration to write, for `label` and `rebox`
  --per-class            also thresholds of single classes
  --holdout F            fraction that is reported on, and not fitted to
  --json                 the calibration on stdout
  --config FILE          YAML with any of these flags
"""

EXPORT = """
  python -m jobs export run/ --to coco --out coco/
  python -m jobs export run/ --to yolo --out yolo/ --split train=0.9,val=0.1
  python -m jobs export run/ --to label-studio --out tasks/ --min-score 0.5

  RUN                    complete run of `label` or `rebox`; it is only read
  --to FORMAT            coco, coco-results, yolo, voc, label-studio, cvat, csv,
                         loc, huggingface, webdataset, wsol, seeds, masks
  --out FOLDER           folder to make, or prefix on a store
  --pictures HOW         link, copy or none
  --split NAME=SHARE,... parts of the dataset
  --category-ids WHICH   all, or those used
  --keep-empty           keep images without a box
  --min-score S          also --min-probability, --min-area, --max-area, --top
  --only-classes NAME .. boxes of these classes alone
  --json                 export.json on stdout
  --config FILE          YAML with any of these flags
"""

REPORT = """
  python -m jobs report run/
  python -m jobs report run-0.3/ --against run/ --out changes.html

  RUN                    run directory; it may be unfinished
  --out FILE             HTML file to write, by default in the run directory
  --against RUN          another run of the same images, side by side
  --max-images N         images to show
  --json                 what is shown, and where, on stdout
  --config FILE          YAML with any of these flags
"""

VERIFY = """
  python -m jobs verify run/
  python -m jobs verify s3://bucket/run/ --storage-options region=eu-west-1

  OUT                    run directory
  --storage-options ...  KEY=VALUE ... to reach s3:// and gs://
  --json                 the verdict on stdout
  --config FILE          YAML with any of these flags
"""

STATUS = """
  python -m jobs status run/
  python -m jobs status s3://bucket/run/ --json

  OUT                    run directory
  --storage-options ...  KEY=VALUE ... to reach s3:// and gs://
  --json                 totals, reasons, agreement on stdout
  --config FILE          YAML with any of these flags
"""

SHOW = """
  python -m jobs show run/ tabby/0001.jpg
  python -m jobs show run/ --class tabby --grid 5x4 --to sheet.png
  python -m jobs show run/ --worst

  OUT                    run directory
  IMAGE_ID ...           images' ids, or one of the next three
  --random               a sheet of images drawn at random
  --class CLASS          a sheet of images with a map of this class
  --worst                a sheet of those whose best box is worst by `audit`
  --grid 5x4             columns and rows
  --to FILE              PNG to write, by default in OUT/show
  --config FILE          YAML with any of these flags
"""

COMPARE = """
  python -m jobs compare run/ run-0.3/
  python -m jobs compare run/ new/ --fail-if "max_box_acc_v2 < -1.0" --json

  A B                    two run directories, audited or not
  --fail-if CONDITION .. exit code 3 where one holds of B - A
  --json                 the comparison on stdout
  --out FILE             file to write it to
  --config FILE          YAML with any of these flags
"""

BENCH = """
  python -m jobs bench --images photos/
  python -m jobs bench dispatch plan --images photos/ --out figures.jsonl

  SECTION ...            stages limit refine executors peers start dispatch plan
                         memory rebox audit export report
  --images FOLDER        pictures; they are used again and again
  --models NAME ...      networks to measure
  --num-images N         images of each run
  --rounds N             how often each contender has its turn
  --out FILE             file to append the figures to
  --json                 the figures on stdout
"""

DEMO = """
  python -m jobs demo
  python -m jobs demo --out there/

  --out FOLDER           for the photos and the run, with the page that shows it
"""

DOCTOR = """
  python -m jobs doctor
  python -m jobs doctor --images photos/ --out run/ --model resnet50
  python -m jobs doctor --out s3://bucket/run --ray-address HEAD:6379 --json

  --images PLACE ...     sources to reach, and to read a file of
  --out RUN              where to write, list, read and remove a file
  --model NAME           network to load; --weights, --class-names as of label
  --device cuda          fail where there is no GPU
  --ray-address HEAD     ask every node of that cluster, not this machine alone
  --timeout S            seconds that a node has to answer
  --json                 one JSON document on stdout
  --config FILE          YAML with any of these flags
"""

SCREENS = {
    "label": (LABEL, "docs/label.md, networks.md"),
    "rebox": (REBOX, "docs/label.md"),
    "audit": (AUDIT, "docs/audit.md, truth.md"),
    "calibrate": (CALIBRATE, "docs/calibrate.md"),
    "export": (EXPORT, "docs/export.md"),
    "report": (REPORT, "docs/report.md"),
    "verify": (VERIFY, "docs/label.md"),
    "status": (STATUS, "docs/label.md"),
    "show": (SHOW, "docs/label.md"),
    "compare": (COMPARE, "docs/compare.md"),
    "bench": (BENCH, "docs/measurements.md"),
    "doctor": (DOCTOR, "docs/operate.md"),
    "demo": (DEMO, "docs/tutorial.md"),
}
"""By command: examples and flags, and the pages that say more."""


def screen_of(command: str, purpose: str) -> str:
    """Return what `COMMAND --help` shows: at most 24 lines of 80 columns."""
    screen, pages = SCREENS[command]
    return f"{command}: {purpose}\n{screen}\nAll flags: python -m jobs {command} --help-all. More: {pages}"
