"""Reads Delta tables with Apache Spark, for the tests; `scripts/spark.sh` brings Spark.

    spark.py JARS_FOLDER

Each line of standard input asks for a table: {"table": PATH, "version": N}; without a version, for the newest. The
answer is a line {"columns": [...], "rows": [[TEXT or null, ...], ...]}, or {"error": TEXT}. The first line of output,
{"spark": VERSION}, says that Spark is up. Ends with its input.
"""

import datetime
import glob
import json
import os
import sys
import time

from pyspark.sql import SparkSession

SETTINGS = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.shuffle.partitions": "2",
    "spark.databricks.delta.snapshotPartitions": "2",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
    "spark.ui.enabled": "false",
    "spark.log.level": "ERROR",
}


def session(jars):
    files = ",".join(sorted(glob.glob(os.path.join(jars, "*.jar"))))
    builder = SparkSession.builder.master("local[2]").appName("tidemill").config("spark.jars", files)
    for key, value in SETTINGS.items():
        builder = builder.config(key, value)
    return builder.getOrCreate()


def text(value):
    """As Arrow prints it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, datetime.datetime) and value.microsecond % 1000 == 0:
        return value.isoformat(timespec="milliseconds" if value.microsecond else "seconds")
    if isinstance(value, datetime.datetime):
        return value.isoformat()
    return None if value is None else str(value)


def read(spark, request):
    reader = spark.read.format("delta")
    if request.get("version") is not None:
        reader = reader.option("versionAsOf", request["version"])
    frame = reader.load(request["table"])
    return {"columns": frame.columns, "rows": [[text(value) for value in row] for row in frame.collect()]}


def main(jars):
    spark = session(jars)
    print(json.dumps({"spark": spark.version}), flush=True)
    for line in sys.stdin:
        try:
            answer = read(spark, json.loads(line))
        except Exception as error:  # whoever asked says what it makes of it
            answer = {"error": str(error)}
        print(json.dumps(answer), flush=True)
    spark.stop()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    os.environ["TZ"] = "UTC"
    time.tzset()
    main(sys.argv[1])
