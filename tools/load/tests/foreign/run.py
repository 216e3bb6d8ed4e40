#!/usr/bin/env python3
"""Artefacts of the load tool in the hands of others: HdrHistogram's Python port, and a validator of JSON schemas.

    run.py                          makes runs of its own and reads them
    run.py --packages FOLDER        where the virtual environment goes

- `latency.hlog`, merged over the measured phases, has the percentiles, counts and extremes that `summary.json` says
- each `.hgrm` has, line by line, the counts and percentiles of the log's seconds of that phase
- `summary.json` is of the form that `tools/load/summary.schema.json` describes

One line `ok NAME` a run; exit status 1 at the first difference.
"""

import argparse
import json
import math
import os
import pathlib
import re
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[3]
SCHEMA = ROOT / "tools/load/summary.schema.json"
INSTALL_SECONDS = 300
HOUR_US = 3_600_000_000
PERCENTILES = {"p50_us": 50, "p75_us": 75, "p90_us": 90, "p95_us": 95, "p99_us": 99, "p99_9_us": 99.9,
               "p99_99_us": 99.99, "p99_999_us": 99.999}


class Failed(Exception):
    """Two who ought to agree do not."""


def expect(is_so, words):
    if not is_so:
        raise Failed(words)


def with_packages(packages):
    """Goes on in an environment that has the packages."""
    venv = packages / "foreign-venv"
    wanted = (HERE / "requirements.txt").read_text()
    stamp = venv / "installed.txt"
    if not stamp.exists() or stamp.read_text() != wanted:
        subprocess.run([sys.executable, "-m", "venv", "--clear", venv], check=True)
        pip = [venv / "bin/python", "-m", "pip", "install", "-q", "-r", HERE / "requirements.txt"]
        subprocess.run(pip, check=True, timeout=INSTALL_SECONDS)
        stamp.write_text(wanted)
    python = venv / "bin/python"
    if pathlib.Path(sys.prefix) != venv:
        os.execv(python, [python, __file__, *sys.argv[1:]])


def read_log(path):
    """By tag and second, the histograms of the log."""
    from hdrh.histogram import HdrHistogram
    from hdrh.log import HistogramLogReader

    reader = HistogramLogReader(str(path), HdrHistogram(1, HOUR_US, 3))
    found = {}
    while (histogram := reader.get_next_interval_histogram()) is not None:
        second = round((histogram.get_start_time_stamp() / 1000) - reader.base_time_sec)
        found.setdefault(histogram.get_tag(), {})[second] = histogram
    return found


def merged(seconds, wanted):
    from hdrh.histogram import HdrHistogram

    total = HdrHistogram(1, HOUR_US, 3)
    for second, histogram in seconds.items():
        if second in wanted:
            total.add(histogram)
    return total


def percentile(histogram, share, more=0):
    """The lowest value that so many percent do not exceed, as HdrHistogram for Java defines it. The port takes the
    nearest rank where that one takes the next, so it is asked for the percentage of exactly that rank."""
    count = histogram.get_total_count()
    rank = min(max(1, math.ceil(round(count * share / 100, 6))) + more, count)
    return histogram.get_value_at_percentile(rank * 100 / count)


def agree(summary, log):
    """The log's merged seconds against the summary's figures."""
    measured = {place for place, phase in enumerate(summary["phases"]) if phase["measured"]}
    scopes = [("measured phases", summary["operations"], lambda phase: phase in measured)]
    for place, phase in enumerate(summary["phases"]):
        scopes.append((phase["name"], phase["operations"], lambda other, place=place: other == place))
    compared = 0
    for scope, operations, is_in in scopes:
        wanted = {row["second"] for row in summary["timeline"] if is_in(row["phase"])}
        for operation, figures in operations.items():
            for time in ("response", "service"):
                said = figures[time]
                total = merged(log.get(f"{operation}.{time}", {}), wanted)
                name = f"{scope}: {operation}.{time}"
                read = {field: percentile(total, share) if said["count"] else 0
                        for field, share in PERCENTILES.items()}
                read["count"] = total.get_total_count()
                read["max_us"] = total.get_max_value() if said["count"] else 0
                read["min_us"] = total.get_min_value() if said["count"] else 0
                for field, value in read.items():
                    expect(value == said[field], f"{name}: {field} is {said[field]}, the log has {value}")
                    compared += 1
                if said["count"]:
                    mean = total.get_mean_value()
                    expect(math.isclose(mean, said["mean_us"], rel_tol=1e-3), f"{name}: mean {said['mean_us']}, {mean}")
    return compared


LINE = re.compile(r" *(\d+\.\d{3}) (\d\.\d{12}) +(\d+)(?: +(\d+\.\d\d))?$")
FOOTERS = ("#[Mean    = ", "#[Max     = ", "#[Buckets = ")


def distributions(folder, summary, log):
    """Each line of each `.hgrm` against the seconds of that phase in the log, as the port reads them. (What the port
    itself writes has other steps than HdrHistogram for Java.)"""
    files = sorted(folder.glob("*.hgrm"))
    places = {re.sub(r"[^A-Za-z0-9_]", "-", phase["name"]): place for place, phase in enumerate(summary["phases"])}
    for path in files:
        operation, phase, time, _ = path.name.split(".")
        wanted = {row["second"] for row in summary["timeline"] if row["phase"] == places[phase]}
        total = merged(log[f"{operation}.{time}"], wanted)
        below = {}
        for item in total.get_recorded_iterator():
            below[total.get_highest_equivalent_value(item.value_iterated_to)] = item.total_count_to_this_value
        header, empty, *lines = path.read_text().splitlines()
        expect(header.split() == ["Value", "Percentile", "TotalCount", "1/(1-Percentile)"] and empty == "",
               f"{path.name}: not the official header")
        rows = [line for line in lines if not line.startswith("#[")]
        for row in rows:
            expect((found := LINE.match(row)) is not None, f"{path.name}: {row!r}")
            value, share, count = round(float(found[1]) * 1000), float(found[2]), int(found[3])
            expect(below.get(value) == count, f"{path.name}: {row!r}: {below.get(value)} are at most that")
            # Steps are sums of fractions: one that falls on a rank may lie a hair above it.
            expect(value in (percentile(total, share * 100), percentile(total, share * 100, 1)), f"{path.name}: {row!r}")
            expect((found[4] is None) == (share == 1.0), f"{path.name}: {row!r}")
        expect(count == total.get_total_count() and share == 1.0, f"{path.name}: ends at {rows[-1]!r}")
        feet = dict(zip(FOOTERS, lines[len(rows):]))
        expect(all(line.startswith(begin) for begin, line in feet.items()), f"{path.name}: footers {feet}")
        numbers = [float(it) for line in feet.values() for it in re.findall(r"= *([0-9.]+)", line)]
        said = (total.get_mean_value() / 1000, total.get_stddev() / 1000, total.get_max_value() / 1000, count)
        is_same = all(math.isclose(a, b, rel_tol=2e-3, abs_tol=1e-3) for a, b in zip(numbers, said))
        expect(is_same, f"{path.name}: footers say {numbers}, the log {said}")
    return len(files)


def read(folder):
    import jsonschema

    summary = json.loads((folder / "summary.json").read_text())
    schema = json.loads(SCHEMA.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    faults = list(jsonschema.Draft202012Validator(schema).iter_errors(summary))
    expect(not faults, "summary.json: " + "; ".join(f"{fault.json_path}: {fault.message}" for fault in faults[:5]))
    log = read_log(folder / "latency.hlog")
    compared = agree(summary, log)
    files = distributions(folder, summary, log)
    expect(compared > 0 and files > 0, "nothing to compare")
    print(f"ok {folder.name}: {compared} figures, {files} distributions")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", type=pathlib.Path, default=ROOT / "target", help="where packages go")
    parser.add_argument("folders", nargs="*", type=pathlib.Path, help="runs to read instead of own ones")
    options = parser.parse_args()
    with_packages(options.packages.resolve())
    with tempfile.TemporaryDirectory(prefix="corefire-foreign-") as made:
        folders = options.folders
        if not folders:
            make = ["cargo", "run", "--quiet", "-p", "corefire-load", "--example", "artefacts", "--", made]
            subprocess.run(make, check=True, cwd=ROOT)
            folders = sorted(it for it in pathlib.Path(made).iterdir() if it.is_dir())
        try:
            for folder in folders:
                read(folder)
        except Failed as error:
            sys.exit(f"FAILED {folder.name}: {error}")


if __name__ == "__main__":
    main()
