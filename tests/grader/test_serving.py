"""The load test's judge: points with known answers, servers that misbehave, what a submission must not bring."""

import csv
import json
import math
import re
import socket
import zipfile
from html.parser import HTMLParser
from pathlib import Path
from textwrap import indent

import msgspec
import pytest
from typer.testing import CliRunner

from final_project.summary import CUT_OFF, Record, load_questions, summarize
from final_project.trace import Request, write_trace
from grader.cli import app
from grader.sandbox import isolation
from grader.serving import report
from grader.serving.command import Session
from grader.serving.judge import HIDDEN, Result, check_honesty, installed, repeats
from grader.serving.rules import (
    Forbidden,
    audit,
    forbidden_module,
    imports,
    installed_forbidden,
    load_configuration,
    load_rules,
    stage,
)
from grader.serving.scoring import (
    Conditions,
    Marks,
    Measured,
    Points,
    accuracy,
    accuracy_error,
    distance,
    earned,
    front,
    reaches,
    scale,
)
from grader.submissions import Refused

MARKS = Marks(simple=0.8, improved=0.9, best=1.0)
TASKS = ("math", "choice")
PARTS = ("accuracy", "efficiency", "tradeoff")
POINTS = Points(accuracy=25, efficiency=25, tradeoff=15, by_hand=35)
CONDITIONS = Conditions(standard_errors=2, least_accuracy=0.5)


# Points


def test_accuracy_is_a_mean_over_tasks() -> None:
    """Tasks weigh alike, however many answers each has."""
    assert accuracy({"math": [1, 1, 1, 1], "choice": [0, 1]}, {}, TASKS) == 0.75
    assert accuracy({"math": [1.0]}, {}, TASKS) == 0.5
    assert accuracy({}, {}, TASKS) == 0


def test_answering_only_what_is_easy_gains_nothing() -> None:
    """What the simple baseline has answered more of a task counts as wrong; more answers than that are no harm."""
    scores: dict[str, list[float]] = {"math": [1, 1], "choice": [1, 0, 1, 0]}
    assert accuracy(scores, {"math": 8, "choice": 2}, TASKS) == (2 / 8 + 2 / 4) / 2


def test_error_of_accuracy() -> None:
    """The standard errors of independent tasks add in squares: each of 100 answers, half of them right, has .05."""
    halves = [0.0, 1.0] * 50
    assert accuracy_error({"math": halves, "choice": halves}, TASKS) == pytest.approx(math.sqrt(2) * 0.05 / 2)


@pytest.mark.parametrize(
    ("value", "share"),
    [(0, 0), (50, 0.4), (100, 0.8), (150, 0.85), (200, 0.9), (300, 0.95), (400, 1.0), (500, 1.0), (-1, 0)],
)
def test_scale(value: float, share: float) -> None:
    """Between nothing, the two baselines and the best, the share of the points is in proportion."""
    assert scale(value, 100, 200, 400, MARKS) == pytest.approx(share)


def test_scale_where_places_coincide() -> None:
    """Baselines as good as each other or better than the best: the highest mark of a place holds, no division by 0."""
    assert scale(100, 100, 100, 300, MARKS) == 0.9
    assert scale(200, 100, 100, 300, MARKS) == pytest.approx(0.95)
    assert scale(90, 100, 80, 300, MARKS) == pytest.approx(0.72)  # the improved baseline is moved up to the simple one
    assert scale(100, 100, 200, 150, MARKS) == 0.8
    assert scale(150, 100, 200, 150, MARKS) == pytest.approx(0.85)  # the best submission is below the baseline
    assert scale(0, 0, 0, 0, MARKS) == 1.0


def test_as_accurate_as_the_simple_baseline() -> None:
    """So many standard errors of the difference are forgiven, and no more."""
    simple = Measured(0.50, 100, 0.03)
    assert reaches(Measured(0.40, 1, 0.04), simple, standard_errors=2)  # .05 is the error of the difference
    assert not reaches(Measured(0.39, 1, 0.04), simple, standard_errors=2)
    assert not reaches(Measured(0.49, 1, 0.0), Measured(0.5, 1, 0.0), standard_errors=2)


A, B, C = Measured(1.0, 50), Measured(0.6, 80), Measured(0.2, 100)


def test_front() -> None:
    """The front holds what nothing else beats on one axis without losing on the other."""
    assert front([C, Measured(0.6, 70), A, Measured(0.1, 100), B, B]) == [A, B, C]


@pytest.mark.parametrize(
    ("system", "expected"),
    [
        (A, 0.0),
        (B, 0.0),
        (Measured(0.9, 45), 0.05),  # to the right, past A
        (Measured(0.5, 70), 0.1),  # to the right past B, or up above it
        (Measured(0.55, 48), math.hypot(0.02, 0.05)),  # up and to the right, to the corner between A and B
        (Measured(0.0, 95), 0.05),  # to the right, past C
        (Measured(0.1, 79), math.hypot(0.01, 0.1)),  # to the corner between B and C
        (Measured(0.0, 0), math.hypot(0.5, 0.6)),
    ],
)
def test_distance(system: Measured, expected: float) -> None:
    """The distance is that to the nearest place that nothing dominates, in units of the best of each axis."""
    systems = [A, B, C]
    assert distance(system, systems) == pytest.approx(expected)
    assert distance(system, [*systems, system]) == pytest.approx(expected)
    grid = [(x, y / 100) for x in range(101) for y in range(101)]
    free = [(x, y) for x, y in grid if not any(other.served > x and other.accuracy > y for other in systems)]
    gaps = [math.hypot(max(0.0, x - system.served) / 100, max(0.0, y - system.accuracy)) for x, y in free]
    assert min(gaps) == pytest.approx(expected)


def test_the_best_of_each_part_counts() -> None:
    """A student with an accurate and a fast system earns by both; one that is fast and wrong earns nothing by speed."""
    simple, improved = Measured(0.5, 100), Measured(0.5, 200)
    students = {
        "ada": {"slow": Measured(0.8, 50), "fast": Measured(0.5, 400)},
        "bob": {"wrong": Measured(0.25, 1000)},
        "mallory": {"at once": Measured(0.2, 5000)},
        "eve": {},
    }
    found = earned(students, simple, improved, POINTS, MARKS, CONDITIONS)
    assert (found["ada"].accuracy, found["ada"].efficiency, found["ada"].tradeoff) == (25, 25, 15)
    assert found["ada"].by_system == {"accuracy": "slow", "efficiency": "fast", "tradeoff": "slow"}
    assert found["bob"].accuracy == pytest.approx(25 * 0.4)
    assert found["bob"].efficiency == 0
    assert found["bob"].tradeoff == 15  # nothing as accurate serves more: it is on the front
    assert (found["mallory"].efficiency, found["mallory"].tradeoff) == (0, 0)
    assert found["eve"].total == 0
    assert found["ada"].total == 65


def test_a_baseline_handed_in_earns_its_mark() -> None:
    """Beside a better submission, the baselines themselves earn 80 and 90 % of every part."""
    simple, improved, best = Measured(0.5, 100), Measured(0.6, 200), Measured(0.8, 400)
    students = {"simple": {"s": simple}, "improved": {"s": improved}, "best": {"s": best}}
    found = earned(students, simple, improved, POINTS, MARKS, CONDITIONS)
    assert found["simple"].total == pytest.approx(0.8 * 65)
    assert found["improved"].total == pytest.approx(0.9 * 65)
    assert found["best"].total == pytest.approx(65)


# What is handed in


RULES = Forbidden(forbidden_distributions=["vllm", "llama-cpp-python"], forbidden_modules=["vllm", "a.serving"])


def test_imports_are_found() -> None:
    """Imports of every form are found with their full names, relative ones and strings elsewhere are not."""
    source = b"""
import vllm.engine as e, os
from a import serving
from . import vllm
def late():
    importlib.import_module("vllm")
    __import__("sglang")
    print("vllm")
"""
    assert imports(source) == {
        (2, "vllm.engine"), (2, "os"), (3, "a"), (3, "a.serving"), (6, "vllm"), (7, "sglang"),
    }  # fmt: skip
    assert imports(b"not python (") == set()


def test_forbidden_modules() -> None:
    """A module is forbidden with all that is inside it; one that only begins alike is not."""
    assert forbidden_module("vllm.engine.llm", RULES) == "vllm"
    assert forbidden_module("a.serving", RULES) == "a.serving"
    for allowed in ("vllmish", "a", "a.server", "myvllm.vllm"):
        assert forbidden_module(allowed, RULES) is None


def test_audit(tmp_path: Path) -> None:
    """Imports, vendored packages and machine code are found by name and line; a clean submission has nothing."""
    files = {
        "engine.py": b"import torch\nfrom vllm import LLM\n",
        "vllm/__init__.py": b"",
        "llama_cpp_python-0.3.dist-info/METADATA": b"",
        "server": b"\x7fELF....",
        "fine.py": b"import transformers\n",
    }
    for name, contents in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(contents)
    found = audit(tmp_path, RULES)
    assert len(found) == 4
    assert any(words.startswith("engine.py, line 2, imports vllm") for words in found)
    assert any(words.startswith("vllm is named like vllm") for words in found)
    assert any("dist-info is an installed distribution" in words for words in found)
    assert any("server is machine code" in words for words in found)
    for name in ("engine.py", "vllm", "llama_cpp_python-0.3.dist-info", "server"):
        path = tmp_path / name
        path.unlink() if path.is_file() else [file.unlink() for file in path.iterdir()] and path.rmdir()
    assert audit(tmp_path, RULES) == []


def test_what_is_installed() -> None:
    """Distributions are known by any spelling of their names."""
    names = {"torch": "2.0", "llama_cpp_python": "0.3"}
    assert installed_forbidden(names, RULES) == ["llama_cpp_python 0.3 is installed, which is forbidden"]
    assert installed_forbidden({"torch": "2.0"}, RULES) == []


def test_the_kit_keeps_its_own_rules() -> None:
    """What students are given passes the audit, and so does what the sandbox has installed."""
    rules, test = load_rules(), load_configuration()
    assert audit(isolation.KIT / "final_project", rules) == []
    assert installed(test.packages, rules) == []
    points = test.points
    assert points.accuracy + points.efficiency + points.tradeoff + points.by_hand == 100


SERVE = b'[[systems]]\nname = "tiny"\nmodel = "course-small"\n'


def test_staging(tmp_path: Path) -> None:
    """The package is found at the root of a folder or zip, or below; what lies beside it is left out."""
    files = {"serve.toml": SERVE, "engine.py": b"x = 1\n", "weights/model.safetensors": b"\0" * 10}
    for number, prefix in enumerate(("", "final_project/", "ada/final_project/")):
        archive = tmp_path / f"{number}.zip"
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr("beside.txt" if prefix else "inside.txt", b"")
            for name, contents in files.items():
                file.writestr(prefix + name, contents)
        folder = tmp_path / str(number)
        configuration = stage(archive, folder, 1000)
        assert [system.name for system in configuration.systems] == ["tiny"]
        there = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
        assert there - {"final_project/inside.txt"} == {f"final_project/{name}" for name in files}


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"engine.py": b""}, "there is no serve.toml"),
        ({"serve.toml": b"systems = 3"}, "serve.toml: Expected `array`"),
        ({"serve.toml": SERVE * 2}, "names of their own"),
        ({"serve.toml": SERVE, "big": b"x" * 2000}, "unpacked"),
    ],
)
def test_refused(files: dict[str, bytes], reason: str, tmp_path: Path) -> None:
    """What cannot be tested is refused with a line for the student, without the judge's paths."""
    source = tmp_path / "ada"
    source.mkdir()
    for name, contents in files.items():
        (source / name).write_bytes(contents)
    with pytest.raises(Refused, match=reason) as refused:
        stage(source, tmp_path / "staged", 1000)
    assert str(tmp_path) not in str(refused.value)


# Honesty


def served(*texts: str, tokens: int = 3, claimed: int | None = None, arrival: float = 0.0) -> Record:
    count = len(texts)
    return Record(arrival, arrival, arrival + 1, arrival + 2, 200, "", list(texts), [tokens] * count, claimed)


def asking(*questions: str, max_tokens: int = 8) -> Request:
    return Request(0, [[{"role": "user", "content": question}] for question in questions], max_tokens)


def test_tokens_that_are_claimed() -> None:
    """A server may count the end token of each answer; claims far beyond what its texts have are told."""
    trace = [asking("a", "b")] * 2
    assert check_honesty(trace, [served("x", "x", claimed=8)] * 2) == []
    assert check_honesty(trace, [served("x", "x", claimed=16)] * 2) == [
        "the server claims 32 tokens; its answers have 16"
    ]


def test_answers_that_are_too_long() -> None:
    """More tokens than were asked for are told."""
    (found,) = check_honesty([asking("a")], [served("x", tokens=9)])
    assert found.startswith("1 answers have more tokens than were asked for")


def test_repeated_requests() -> None:
    """Requests with the same prompts are compared with the first that was served, and told if most are different."""
    trace = [asking("a"), asking("b"), asking("a"), asking("a"), asking("a", "b")]
    lost = Record(0)
    assert repeats(trace, [served(text) for text in "xyxzx"]) == (2, 1)
    assert repeats(trace, [lost, *(served(text) for text in "yxzx")]) == (1, 0)
    assert check_honesty(trace, [lost, *(served(text) for text in "yxzx")]) == [
        "of 1 repeated requests only 0 were answered as the first time"
    ]


def test_fresh_prompts(tmp_path: Path) -> None:
    """No question of the load test is in a set that students have: canned answers to all of these score nothing."""
    test = load_configuration()
    session = Session(tmp_path, test)
    asked = {chat[-1]["content"] for request in session.trace for chat in request.prompts}
    assert len(asked) > 500
    canned: set[str] = set()
    for split in ("train", "dev", "dev_test"):
        canned |= set(load_questions(split)[1])
    assert len(canned) > 2000
    assert not asked & canned
    assert asked <= set(session.questions)


def test_the_handout_says_what_the_configuration_says() -> None:
    """Rates, limits and packages of the load test stand in the handout as they are configured."""
    test = load_configuration()
    handout = " ".join((isolation.KIT / "final_project" / "README.md").read_text().split())
    poisson, bursty = test.phases
    assert (poisson.burstiness, bursty.burstiness < 1) == (1.0, True)
    rest = test.seconds - poisson.seconds - bursty.seconds
    asked = max(pool.max_tokens for pool in load_questions(data=HIDDEN)[0].values())
    for words in (
        f"{poisson.rate:g} requests a second for {poisson.seconds:g} s",
        f"{bursty.rate:g} a second in bursts for {bursty.seconds:g} s, and {rest:g} s more",
        f"a `max_tokens` of {asked};",
        f"{test.limits.start_seconds:g} s to start, {test.limits.memory_bytes >> 30} GiB of memory",
        f"{test.limits.processes} processes and threads, and {test.limits.disk_bytes >> 20} MiB in `/tmp`",
        f"({test.limits.submission_bytes >> 20} MiB at most, unpacked)",
        *(f"| {part.replace('tradeoff', 'trade-off')} | {getattr(test.points, part):g} |" for part in PARTS),
        f"earns {100 * test.marks.simple:g} %",
    ):
        assert words in handout, words
    (there,) = re.findall(r"There to import are (.*?), in the versions", handout)
    assert sorted(re.split(r",? and |, ", there)[2:]) == sorted([*test.packages])


def test_another_seed_asks_at_other_times(tmp_path: Path) -> None:
    """With another seed the trace is another one, and its results are not compared with those of the first."""
    test = load_configuration()
    one, other = (Session(tmp_path, msgspec.structs.replace(test, seed=seed)) for seed in (0, 1))
    assert [request.arrival for request in one.trace] != [request.arrival for request in other.trace]
    assert one.digest != other.digest


# Servers in the sandbox

TINY = """
import argparse, json, os, socket, sys, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

parser = argparse.ArgumentParser()
for name in ("--config", "--system", "--port"):
    parser.add_argument(name)
arguments = parser.parse_args()
answered = 0

def reached(family, address):
    with socket.socket(family) as probe:
        probe.settimeout(0.2)
        try:
            probe.connect(address)
            return True
        except OSError:
            return False

def answer(question):
    {answer}

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def event(self, data):
        data = b"data: " + data + b"\\n\\n"
        self.wfile.write(b"%x\\r\\n%s\\r\\n" % (len(data), data))

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = answer(body["messages"][-1]["content"])
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        choice = {"index": 0, "delta": {"content": text}, "finish_reason": "stop"}
        self.event(json.dumps({"choices": [choice]}).encode())
        self.event(b"[DONE]")
        self.wfile.write(b"0\\r\\n\\r\\n")

{start}
"""
SERVES = 'ThreadingHTTPServer(("127.0.0.1", int(arguments.port)), Handler).serve_forever()'
CONFIGURATION = """
title = "Tiny"
seed = 0
seconds = 2.0
phases = [{ seconds = 0.5, rate = 20.0 }]
packages = []
limits = { start_seconds = START, memory_bytes = 1073741824, processes = 64, disk_bytes = 1048576, \
file_bytes = 1048576, open_files = 64, submission_bytes = 1048576 }
points = { accuracy = 25, efficiency = 25, tradeoff = 15, by_hand = 35 }
marks = { simple = 0.8, improved = 0.9, best = 1.0 }
conditions = { standard_errors = 2.0, least_accuracy = 0.5 }
"""


class LoadTested:
    """The load test of one tiny server."""

    def __init__(self, folder: Path, answer: str, start: str = SERVES, start_seconds: float = 20):
        package = folder / "ada" / "final_project"
        package.mkdir(parents=True)
        (package / "serve.toml").write_bytes(SERVE)
        (package / "__init__.py").touch()
        text = TINY.replace("{answer}", answer).replace("{start}", start)
        (package / "serve.py").write_text(text)
        (folder / "test.toml").write_text(CONFIGURATION.replace("START", str(start_seconds)))
        trace = [Request(0.05 * i + 0.3 * (i > 4), asking(f"question {i}").prompts, 8) for i in range(10)]
        write_trace(folder / "trace.jsonl", trace)
        out = folder / "out"
        words = ["serve-test", str(folder / "ada"), "--out", str(out), "--config", str(folder / "test.toml")]
        words += ["--trace", str(folder / "trace.jsonl"), "--no-baselines", "--json"]
        self.run = CliRunner().invoke(app, words)
        self.place = out / "ada" / "tiny"

    @property
    def result(self) -> Result:
        return msgspec.json.decode((self.place / "result.json").read_bytes(), type=Result)

    @property
    def records(self) -> list[Record]:
        lines = (self.place / "records.jsonl").read_bytes().splitlines()
        return [msgspec.json.decode(line, type=Record) for line in lines]


def test_a_good_server(tmp_path: Path) -> None:
    """A server that does what it should serves everything, each question its own answer; pages are written."""
    tested = LoadTested(tmp_path, "return question.upper()")
    assert tested.run.exit_code == 0, tested.run.output
    assert (tested.result.failure, tested.result.served) == ("", 10)
    assert [record.texts for record in tested.records] == [[f"QUESTION {i}"] for i in range(10)]
    assert (tested.place / "report.html").exists()
    assert json.loads(tested.run.stdout)[0]["student"] == "ada"


def test_no_network(tmp_path: Path) -> None:
    """A server reaches nobody: no address, no name, nothing of the machine's loopback, and no file of the grader."""
    with socket.create_server(("127.0.0.1", 0)) as outside:
        port = outside.getsockname()[1]
        answer = f"""
found = [reached(socket.AF_INET, address) for address in (("1.1.1.1", 53), ("127.0.0.1", {port}))]
try:
    found.append(bool(socket.getaddrinfo("example.org", 80)))
except OSError:
    found.append(False)
found += [os.path.exists("/packages/grader"), os.path.exists({str(isolation.KIT)!r})]
found.append(reached(socket.AF_INET, ("127.0.0.1", int(arguments.port))))
return str(found)"""
        tested = LoadTested(tmp_path, indent(answer, "    ").strip())
        texts = {text for record in tested.records for text in record.texts}
        assert texts == {"[False, False, False, False, False, True]"}


def test_a_server_that_dies(tmp_path: Path) -> None:
    """A server that dies in the middle has served what it has served, the rest is lost, and how it ended is told."""
    answer = "if question == 'question 5':\n        os._exit(3)\n    return 'yes'"
    tested = LoadTested(tmp_path, answer)
    assert tested.run.exit_code == 0, tested.run.output
    assert tested.result.failure == "the server ended with exit code 3"
    assert [record.served for record in tested.records[:4]] == [True] * 4
    assert not any(record.served for record in tested.records[5:])


def test_a_server_that_hangs(tmp_path: Path) -> None:
    """One request that hangs is lost alone, and the window ends."""
    tested = LoadTested(tmp_path, "if question == 'question 5':\n        threading.Event().wait()")
    answers = [record.error for record in tested.records]
    assert answers[5] == CUT_OFF
    assert [error for place, error in enumerate(answers) if place != 5] == [""] * 9


@pytest.mark.parametrize(
    ("start", "seconds", "failure"),
    [
        ("threading.Event().wait()", 0.5, "/health did not answer within 0.5 s"),
        ("sys.exit('no such model')", 20, "the server ended with exit code 1 before it was healthy"),
        ("os.abort()", 20, "the server was killed by signal 6 before it was healthy"),
    ],
)
def test_a_server_that_does_not_start(start: str, seconds: float, failure: str, tmp_path: Path) -> None:
    """A server that never becomes healthy serves nothing; its log is kept for the staff."""
    tested = LoadTested(tmp_path, "pass", start, seconds)
    assert tested.run.exit_code == 0, tested.run.output
    assert (tested.result.failure, tested.result.served) == (failure, 0)
    log = (tested.place / "log.txt").read_text()
    assert ("no such model" in log) == ("no such model" in start)
    assert "no such model" not in (tested.place / "report.html").read_text()


def test_a_submission_with_a_serving_engine(tmp_path: Path) -> None:
    """A forbidden import is refused before anything is started."""
    tested = LoadTested(tmp_path, "import vllm")
    assert tested.run.exit_code == 1
    assert "imports vllm, which is forbidden" in " ".join(tested.run.output.split())
    assert not tested.place.exists()


# Pages

HOSTILE = ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "</style>", "{{ 7 * 191 }}", "\x1b[31mred"]


class Page(HTMLParser):
    """The tags and the text of a page; strict about nesting of what is not void."""

    def __init__(self, page: str):
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attributes

    def handle_data(self, data: str) -> None:
        self.text += data


def standing(student: str = "ada", system: str = "mine") -> tuple[Result, list[Record], report.Standing]:
    records = [served("yes", tokens=5, arrival=0.5 * i) for i in range(10)] + [Record(3.0, 3.1), Record(4.0)]
    records[3].error, records[3].end = "status 500", None
    scores = {"math": [1.0, 0.0, 1.0], "multiple_choice": [1.0, 1.0], "open_ended": [0.0, 1.0]}
    results = []
    for name, of_system in ((student, system), (report.BASELINES, "simple"), (report.BASELINES, "improved")):
        result = Result(name, of_system, "course-base", "abc", repeats=(3, 2), scores=scores)
        result.summary = summarize(records if name == student else records[:4], scores, 10)
        results.append(result)
    results[0].findings = [HOSTILE[0]]
    results[0].failure = HOSTILE[1]
    return results[0], records, report.stand(results, load_configuration())


def test_page_of_a_system() -> None:
    """The page has the points, the plot with both baselines, all quantiles, accuracies and errors."""
    result, records, of_all = standing()
    text = Page(report.run_page(result, records, of_all, load_configuration())).text
    for words in ("simple", "improved", "Time to first token", "p99", "math", "status 500", CUT_OFF, "Trade-off"):
        assert words in text
    assert of_all.earned["ada"].accuracy == 25


@pytest.mark.parametrize("name", HOSTILE)
def test_pages_execute_nothing(name: str) -> None:
    """Whatever a student or a system is called, and whatever happened, is text; nothing is loaded from anywhere."""
    result, records, of_all = standing(student=name, system=name)
    test = load_configuration()
    for page in (report.run_page(result, records, of_all, test), report.class_page(of_all, test, "today")):
        parsed = Page(page)
        assert not {"script", "img", "iframe", "link"} & set(parsed.tags)
        assert parsed.tags.count("style") == 1
        assert not [key for key, _ in parsed.attributes if key.startswith("on") or key == "src"]
        assert "1337" not in parsed.text
        assert "\x1b" not in page
        assert not re.search(r"https?://", page)
        assert "default-src 'none'" in page


def test_page_without_baselines_and_without_answers() -> None:
    """A system that served nothing has a page too, and no points are made up where there are no baselines."""
    result = Result("ada", "mine", "course-base", "abc", summary=summarize([Record(0.5)], {}, 10))
    of_all = report.stand([result], load_configuration())
    assert (of_all.earned, of_all.reached) == ({}, {})
    page = report.run_page(result, [Record(0.5)], of_all, load_configuration())
    assert "Nothing was answered" in page
    assert "There are no points yet" in report.class_page(of_all, load_configuration(), "today")


def test_requests_in_flight() -> None:
    """The timeline rises with each arrival and falls with each answer; what is never answered stays until the end."""
    records = [Record(1, 1, 2, 3, 200, ""), Record(2, 2.5), Record(2)]
    chart = report.in_flight(records, 10)
    open_requests, sent = (dict(line.points) for line in chart.lines)
    assert (open_requests[1], open_requests[2], open_requests[3], open_requests[10]) == (1, 3, 2, 2)
    assert (sent[1], sent[2.5], sent[3], sent[10]) == (1, 2, 1, 1)


def test_throughput() -> None:
    """Requests that came and were served are counted in parts of the window, as rates."""
    records = [Record(0.0, 0, 1, 2.9, 200, ""), Record(0.05, 0, 1, 3.0, 200, ""), Record(2.99)]
    came, served_line = report.throughput(records, 3).lines
    assert sum(rate for _, rate in came.points) * 0.1 == pytest.approx(3)
    assert came.points[0][1] == pytest.approx(20)
    assert served_line.points[-1][1] == pytest.approx(10 * 2, abs=10)


@pytest.mark.parametrize(
    ("largest", "end", "ticks"), [(0.97, 1.0, 6), (12, 15, 6), (10, 10, 6), (0.3, 0.3, 4), (0, 1, 2), (300, 300, 4)]
)
def test_axes(largest: float, end: float, ticks: int) -> None:
    """Axes end at a round number not below the largest value."""
    found = report.axis(largest)
    assert found.end >= largest
    assert len(found.ticks) >= 2
    assert found.ticks[-1] == pytest.approx(found.end)


def test_scores_file(tmp_path: Path) -> None:
    """scores.csv has a row for each student with the points of each part, and nothing that a spreadsheet would run."""
    _, _, of_all = standing(student="=1+1")
    report.results_table(of_all, load_configuration()).to_csv(tmp_path / "scores.csv", index=False)
    (row,) = csv.DictReader((tmp_path / "scores.csv").open())
    assert row["name"] == "'=1+1"
    assert (float(row["points"]), float(row["max_points"])) == (65.0, 65.0)
