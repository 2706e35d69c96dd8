"""Write into README.md what it says of the newest saved runs: ``python -m harness.readme``."""

import sys
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean

from harness import report
from harness.errors import ResultsError
from harness.report import approx, summarize
from harness.results import Results, load_results


def newest(kind: str) -> Results:
    """The newest saved run of a kind of cluster.

    Raises:
        ResultsError: there is none, or it was cut short.
    """
    if folders := sorted(Path("results").glob(f"*_{kind}")):
        return load_results(folders[-1])
    raise ResultsError(
        f"No saved run in results/*_{kind}: run `make run` for a local one, `make rehearsal` for a distant one."
    )


def parts(local: Results, distant: Results) -> dict[str, str]:
    """What README.md says of a local measurement and of a rehearsal, by the names in its marks."""
    near, far = (approx(summarize(each.runs)["sync"]["rtt_ms"]) for each in (local, distant))
    first, second = (f"[{each.folder.name}]({each.folder.as_posix()})" for each in (local, distant))
    number, run = next((number, run) for number, run in enumerate(local.runs, start=1) if run.mode == "sync")
    batch_ms = approx(1000 * fmean(batch.elapsed_s for batch in run.batches))
    return {
        "finding": report.finding(local),
        "figure": "![Time per batch of 500 messages: synchronous, asynchronous until handed over, asynchronous until "
        f"acknowledged, on one log scale]({local.folder.as_posix()}/time_per_batch.png)",
        "distance": "That was measured on one machine, on the Kafka that the notebook starts, with a round trip of "
        f"{near} ms as the client measured it. A cloud is tens of milliseconds away and replicates what it stores, and "
        f"the difference grows with both: on three brokers behind a network of 25 ms, {far} ms as the client measured "
        f"it, the same notebook found this. {report.finding(distant).partition(' The reason')[0]}",
        "data": "The numbers above and in the notebook are those of two saved measurements, "
        f"{first} and {second}. For instance, the mean of the {len(run.batches)} values `elapsed_s` of run {number} in "
        f"the first folder's `batches.csv`, times 1000, is what the notebook's table of runs shows for run {number} "
        f"under *batch, sender (ms)*: {batch_ms}.",
    }


def filled(page: str, texts: Mapping[str, str]) -> str:
    """A page with new texts between its marks ``<!-- name -->`` and ``<!-- end of name -->``."""
    for name, text in texts.items():
        before, rest = page.split(f"<!-- {name} -->\n")
        after = rest.split(f"<!-- end of {name} -->")[1]
        page = f"{before}<!-- {name} -->\n{text}\n<!-- end of {name} -->{after}"
    return page


if __name__ == "__main__":
    readme = Path("README.md")
    try:
        texts = parts(newest("local"), newest("distant"))
    except ResultsError as error:
        sys.exit(str(error))
    readme.write_text(filled(readme.read_text(encoding="utf-8"), texts), encoding="utf-8")
