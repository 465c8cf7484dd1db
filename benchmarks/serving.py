"""The reference server beside the two baselines: the same trace through the load test, in the sandbox, in one run.

`python -m benchmarks.serving --out runs/serving` prints a table and leaves the pages of the load test in the folder.
"""

import argparse
import tempfile
from pathlib import Path

import msgspec

from final_project.trace import Phase
from grader.serving.command import Session
from grader.serving.judge import Result, baseline_entry, run_sandboxed
from grader.serving.report import BASELINES
from grader.serving.rules import load_configuration

SYSTEMS = {"simple": BASELINES, "improved": BASELINES, "reference": "reference"}
LATENCIES = {"time_to_first_token": "TTFT", "time_per_output_token": "TPOT", "end_to_end": "end to end"}
COLUMNS = ["system", "served", "requests/s", "tokens/s"]
COLUMNS += [f"{name} {quantile}" for name in LATENCIES.values() for quantile in ("p50", "p99")] + ["accuracy"]


def row(result: Result) -> str:
    """Return a line of the table."""
    summary = result.summary
    assert summary is not None
    latencies = [
        f"{getattr(summary.latencies[name], quantile):.3f} s" if name in summary.latencies else ""
        for name in LATENCIES
        for quantile in ("p50", "p99")
    ]
    accuracies = [accuracy.value for accuracy in summary.accuracy.values()]
    cells = [
        result.system,
        f"{summary.served} of {summary.requests}",
        f"{summary.requests_per_second:.2f}",
        f"{summary.tokens_per_second:.0f}",
        *latencies,
        f"{100 * sum(accuracies) / max(1, len(accuracies)):.1f} %",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Run the systems one after the other and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rate", type=float, default=24.0, help="requests a second, more than any system answers")
    parser.add_argument("--seconds", type=float, default=40.0, help="the window")
    parser.add_argument("--ceiling", action="store_true", help="vLLM's own server too, outside the sandbox")
    arguments = parser.parse_args()
    phases = [Phase(arguments.seconds, arguments.rate)]
    test = msgspec.structs.replace(load_configuration(), seconds=arguments.seconds, phases=phases)
    session = Session(arguments.out, test)
    print(f"| {' | '.join(COLUMNS)} |")
    print("| --- |" + " ---: |" * (len(COLUMNS) - 1))
    with tempfile.TemporaryDirectory() as empty:
        for system, student in SYSTEMS.items():
            result = Result(student, system, "course-base", session.digest)
            out = arguments.out / student / system
            entry = baseline_entry(system, Path(empty))
            run_sandboxed(result, entry, test, session.trace, session.questions, out)
            print(row(result), flush=True)
    if arguments.ceiling:
        for result in session.test_ceiling(lambda name, total: lambda record: None):
            print(row(result), flush=True)
    print(session.write_pages())


if __name__ == "__main__":
    main()
