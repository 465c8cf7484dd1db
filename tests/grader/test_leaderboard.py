"""The leaderboard: a queue that survives a kill, places and fronts with known answers, boards that tell no secret."""

import csv
import json
import os
import re
import signal
import zipfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from final_project.summary import Record
from final_project.trace import Phase, Request
from grader.assignment import UnusableInput
from grader.cli import app
from grader.leaderboard.entries import submit, submit_kit_servers, title_of
from grader.leaderboard.judge import Judge, Run, TaskRun
from grader.leaderboard.page import (
    Names,
    axis,
    board_page,
    board_table,
    gradescope_leaderboard,
    plot,
    write_boards,
)
from grader.leaderboard.pseudonyms import load_key, pseudonym
from grader.leaderboard.queue import SPLITS, Entry, Failed, Queue, Role, Runs, Track, alone, work
from grader.leaderboard.rules import ServerRules, load_rules
from grader.leaderboard.standing import Standing, overall, read_board, share_places, stand
from grader.serving.judge import by_question
from grader.submissions import Refused
from grader.systems import TASKS
from shared_tasks.tasks.loading import load
from shared_tasks.tasks.registry import find_task
from tests.grader.test_serving import HOSTILE, SERVE, SERVES, TINY, Page

EXAMPLES = Path(__file__).parents[2] / "grader" / "examples" / "systems"
NOON = datetime(2026, 11, 2, 12, tzinfo=UTC)
TODAY = "2026-11-02"


def enter(queue: Queue, student: str, files: str = "files", track: Track = "systems", role: Role = "student") -> Entry:
    entry, new = queue.submit(student, track, f"system of {student}", f"{student} {files}", NOON, TODAY, 99, role)
    assert new
    return entry


def run_of(
    right: int, tokens: float = 100.0, variant: str = "450 tokens", served: int = 10, notes: Sequence[str] = ()
) -> Run:
    """Return a run that is right on the first so many of ten questions of each task."""
    scores = [float(number < right) for number in range(10)]
    tasks = {task: TaskRun(scores, 10, 0.5, answered=scores) for task in TASKS}
    return Run(
        variant=variant,
        tasks=tasks,
        tokens=tokens,
        budget=500,
        latencies=(0.5, 1.5),
        served=served,
        requests=30,
        throughput=2.0,
        notes=list(notes),
        findings=[],
        kit="0.1 k",
        model="m 1",
        data="d 2",
    )


def entry_of(number: int, track: Track = "systems", role: Role = "student", student: str = "") -> Entry:
    return Entry(number, student or f"student {number}", track, role, f"system {number}", f"digest {number}", NOON)


def stood(track: Track, *runs: tuple[Run, Role]) -> Standing:
    return stand(track, [(entry_of(number, track, role), run) for number, (run, role) in enumerate(runs, start=1)])


# Scores and places


def test_tasks_weigh_alike() -> None:
    """The score is a mean of means, and its error that of independent tasks."""
    score, error = overall({"math": [1.0, 0.0] * 50, "choice": [1.0] * 4})
    assert score == 0.75
    assert error == pytest.approx(0.05 / 2)


def right_but(*wrong: int) -> dict[str, list[float]]:
    return {"math": [float(number not in wrong) for number in range(100)]}


def test_who_differs_in_few_questions_shares_a_place() -> None:
    """If two differ in 3 of 100 questions, 0 is in the 95 % interval of their difference, and if in 4 it is not.

    A resample leaves out 3 questions with probability .97^100 = .048, and 4 with .96^100 = .017.
    """
    assert share_places([right_but(), right_but(1, 2, 3)]) == [1, 1]
    assert share_places([right_but(), right_but(1, 2, 3, 4)]) == [1, 2]


def test_places_are_of_pairs() -> None:
    """Two systems that are right on 50 and 46 questions differ if these are the same questions, and not otherwise."""
    half, fewer = right_but(*range(50, 100)), right_but(*range(46, 100))
    elsewhere = right_but(*range(54))
    assert share_places([half, fewer]) == [1, 2]
    assert share_places([half, elsewhere]) == [1, 1]


def test_a_place_is_shared_with_its_best_only() -> None:
    """Being within error is not passed on: the third is so of the second and not of the first, and begins a place."""
    systems = [right_but(), right_but(1, 2, 3), right_but(*range(6)), right_but(*range(6)), right_but(*range(40))]
    assert share_places(systems) == [1, 1, 3, 3, 5]


# Fronts


def test_front_and_distances_by_cost() -> None:
    """With 500 tokens there are, the best has 400 left: who costs 50 more than need be is 50/400 off the front."""
    rows = stood("systems", (run_of(4, 100), "student"), (run_of(8, 300), "student"), (run_of(6, 350), "student")).rows
    assert [(row.entry.id, row.on_front, row.distance) for row in rows] == [
        (2, True, 0.0),
        (3, False, pytest.approx(50 / 400)),
        (1, True, 0.0),
    ]


def test_front_and_distances_by_throughput() -> None:
    """For servers, the second axis is what was served: 20 of 100 less than another as accurate is .2 off."""
    runs = [run_of(8, served=50, variant="a"), run_of(4, served=100, variant="b"), run_of(3, served=80, variant="c")]
    rows = stood("servers", *((run, "student") for run in runs)).rows
    assert [(row.run.variant, row.on_front, row.distance) for row in rows] == [
        ("a", True, 0.0),
        ("b", True, 0.0),
        ("c", False, pytest.approx(0.1 / 0.8)),  # up, to as accurate as b, is nearer than 20 to the right
    ]


def test_a_ceiling_does_not_compete() -> None:
    """What everybody stays below has no place, and moves neither the front nor any distance."""
    without = stood("servers", (run_of(8, served=50), "student"), (run_of(3, served=20), "baseline"))
    ceiling = run_of(10, served=1000)
    within = stood(
        "servers", (run_of(8, served=50), "student"), (run_of(3, served=20), "baseline"), (ceiling, "ceiling")
    )
    top = within.rows[0]
    assert (top.entry.role, top.place, top.distance, top.on_front) == ("ceiling", None, None, False)
    assert within.rows[1:] == without.rows
    assert plot(within).staircase[-1][0] < plot(within).dots[0].x


def test_servers_answer_as_many_questions_as_the_simple_baseline() -> None:
    """Ten right answers where the simple baseline has given twenty are an accuracy of one half."""
    few, many = run_of(10, variant="mine"), run_of(5, variant="simple")
    for task in many.tasks.values():
        task.answered, task.answers = [1.0, 0.0] * 10, 20
    rows = stood("servers", (few, "student"), (many, "baseline")).rows
    assert [row.accuracy for row in rows] == [0.5, 0.5]
    assert [row.score for row in rows] == [1.0, 0.5]


def test_the_best_of_an_entrant_is_on_the_board() -> None:
    """Of one student's runs under a budget the best has a row; the others are kept for the history."""
    runs = [(3, "450 tokens"), (7, "450 tokens"), (5, "450 tokens"), (2, "1,100 tokens")]
    entries = [
        (entry_of(number, student="ada"), run_of(right, variant=variant))
        for number, (right, variant) in enumerate(runs)
    ]
    found = stand("systems", entries)
    assert [(row.entry.id, row.place) for row in found.rows] == [(1, 1), (3, 2)]
    assert [row.place for row in found.every] == [None, 1, None, 2]


def test_staircases() -> None:
    """The front goes from the cheapest upwards, and from the most accurate server down to the one that serves most."""
    cheap = plot(stood("systems", (run_of(4, 100), "student"), (run_of(8, 400), "student")))
    xs, ys = zip(*cheap.staircase, strict=True)
    assert list(xs) == [160, 160, 640, 640, 640]
    assert ys[0] == 300
    assert ys[1] == ys[2] > ys[3] == ys[4]
    servers = plot(stood("servers", (run_of(8, served=50), "student"), (run_of(4, served=100), "student")))
    xs, ys = zip(*servers.staircase, strict=True)
    assert list(xs) == [0, 320, 320, 640, 640]
    assert ys[0] == ys[1] < ys[2] == ys[3] < ys[4] == 300


@pytest.mark.parametrize(
    ("lowest", "highest", "ends"),
    [(0, 524, (0, 600)), (0.35, 0.78, (0.3, 0.8)), (0.5, 0.5, (0.5, 1.0)), (0, 0, (0, 1))],
)
def test_axes(lowest: float, highest: float, ends: tuple[float, float]) -> None:
    """An axis begins and ends at round numbers that hold all values."""
    found = axis(lowest, highest)
    assert (found.start, found.end) == pytest.approx(ends)
    assert found.start <= lowest <= highest <= found.end
    assert 3 <= len(found.ticks) <= 8


def test_questions_of_a_trace() -> None:
    """A question is one, however often it is asked; unserved it scores 0. All servers have them in the same order."""
    task = find_task("multiple_choice")
    items = load(task, "dev_test", limit=2)
    first, second = (task.questions(item, task.styles[0])[0] for item in items)
    questions = {first: (task.name, items[0]), second: (task.name, items[1])}
    trace = [
        Request(float(number), [[{"role": "user", "content": words}]], 50)
        for number, words in enumerate([first, second, first])
    ]
    right = task.answer(items[0], task.styles[0])
    served = Record(0.0, 0.0, 0.1, 0.2, 200, "", texts=[right], tokens=[5])
    found = by_question(trace, [served, Record(1.0), Record(2.0)], questions)
    assert [asked.scores for asked in found[task.name]] == [[1.0, 0.0], [0.0]]
    assert [asked.texts for asked in found[task.name]] == [[right], []]


# The queue


def states(queue: Queue) -> list[str]:
    return [one.state for split in SPLITS for one in queue.evaluations(split)]


def test_daily_limit(tmp_path: Path) -> None:
    """So many entries a day and student, the same files again not counted; then one clear line, until the next day."""
    with Queue(tmp_path / "queue") as queue:

        def hand_in(student: str, files: str, day: str = TODAY) -> bool:
            return queue.submit(student, "systems", "", f"{student} {files}", NOON, day, per_day=2)[1]

        assert [hand_in("ada", "a"), hand_in("ada", "b"), hand_in("ada", "a"), hand_in("bob", "c")] == [
            True, True, False, True,
        ]  # fmt: skip
        with pytest.raises(Refused, match=r"^2 of 2 entries of 2026-11-02 are used; the next one can come tomorrow$"):
            hand_in("ada", "d")
        assert hand_in("ada", "d", "2026-11-03")
        assert len(queue.evaluations("dev_test")) == 4


def test_a_day_is_one_of_the_time_zone(tmp_path: Path) -> None:
    """Half an hour before midnight in London, it is the next day in Berlin."""
    rules = load_rules(tmp_path)
    late = datetime(2026, 11, 2, 23, 30, tzinfo=UTC)
    assert rules.day(late) == "2026-11-02"
    assert msgspec.structs.replace(rules, time_zone="Europe/Berlin").day(late) == "2026-11-03"


def measure(entry: Entry, split: str) -> Runs:
    return {"450 tokens": msgspec.json.encode(run_of(5))}


def alike(track: Track, split: str) -> str:
    return "the same"


def test_an_entry_goes_through_its_states(tmp_path: Path) -> None:
    """It is queued, running while it is measured, and then done or failed with its reason; dev-test comes first."""
    with Queue(tmp_path / "queue") as queue:
        enter(queue, "ada")
        enter(queue, "bob")
        seen = []

        def evaluate(entry: Entry, split: str) -> Runs:
            seen.append((entry.student, split, states(queue)))
            if entry.student == "bob":
                raise Failed("there is no hw2/system.py")
            return measure(entry, split)

        assert work(queue, evaluate, alike, SPLITS) == []
        assert seen == [
            ("ada", "dev_test", ["running", "queued", "queued", "queued"]),
            ("bob", "dev_test", ["done", "running", "queued", "queued"]),
            ("ada", "hidden", ["done", "failed", "running", "queued"]),
            ("bob", "hidden", ["done", "failed", "done", "running"]),
        ]
        assert [one.reason for one in queue.evaluations("dev_test")] == ["", "there is no hw2/system.py"]
        assert list(queue.runs("dev_test")) == [(1, "450 tokens")]


def test_the_judges_own_failure_costs_nobody_anything(tmp_path: Path) -> None:
    """The entry is queued again, behind those that were not tried, the others go on, and the next run takes it."""
    with Queue(tmp_path / "queue") as queue:
        for student in ("ada", "bob"):
            enter(queue, student)

        def broken(entry: Entry, split: str) -> Runs:
            if entry.student == "ada":
                raise OSError("no space left")
            return measure(entry, split)

        (trouble,) = work(queue, broken, alike, ["dev_test"])
        assert (trouble.evaluation.entry.student, str(trouble.error)) == ("ada", "no space left")
        assert states(queue) == ["queued", "done", "queued", "queued"]
        enter(queue, "eve")
        order = []
        work(queue, lambda entry, split: order.append(entry.student) or measure(entry, split), alike, ["dev_test"])
        assert order == ["eve", "ada"]


def test_other_conditions_evaluate_anew(tmp_path: Path) -> None:
    """With another model or other data all entries of the track are measured again; with the same ones none is."""
    with Queue(tmp_path / "queue") as queue:
        enter(queue, "ada")
        enter(queue, "bob", track="servers")
        order: list[str] = []

        def evaluate(entry: Entry, split: str) -> Runs:
            order.append(entry.student)
            return measure(entry, split)

        for conditions in (alike, alike, lambda track, split: "another" if track == "systems" else "the same"):
            work(queue, evaluate, conditions, ["dev_test"])
        assert order == ["ada", "bob", "ada"]


def test_measuring_again(tmp_path: Path) -> None:
    """The staff can have one entry evaluated once more; a number that there is not is one clear line."""
    with Queue(tmp_path / "queue") as queue:
        for student in ("ada", "bob"):
            enter(queue, student)
        work(queue, measure, alike, ["dev_test"])
        assert queue.again(2, "dev_test").student == "bob"
        assert states(queue)[:2] == ["done", "queued"]
        assert list(queue.runs("dev_test")) == [(1, "450 tokens")]
        with pytest.raises(UnusableInput, match="there is no entry 7"):
            queue.again(7, "dev_test")


def test_one_worker_at_a_time(tmp_path: Path) -> None:
    """A second run is refused with one line while the first one lives."""
    with alone(tmp_path), pytest.raises(UnusableInput, match="another run evaluates this board"), alone(tmp_path):
        pass
    with alone(tmp_path):
        pass


def killed_at(path: Path, statement: int, done: Path, killed_in: Callable[[], None]) -> bool:
    """Work in a process of its own that is killed before its n-th statement of SQL; return whether it was killed."""
    child = os.fork()
    if child == 0:
        try:
            with Queue(path) as queue:
                count = 0

                def count_down(sql: str) -> None:
                    nonlocal count
                    count += 1
                    if count == statement:
                        os.kill(os.getpid(), signal.SIGKILL)

                queue._connection.set_trace_callback(count_down)

                def evaluate(entry: Entry, split: str) -> Runs:
                    with done.open("a") as log:
                        log.write(f"{entry.id} {split}\n")
                    killed_in()
                    return measure(entry, split)

                with alone(path.parent):
                    work(queue, evaluate, alike, SPLITS)
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def test_a_kill_at_any_moment_loses_nothing(tmp_path: Path) -> None:
    """A worker that is killed before any one of its statements leaves a queue from which the next one goes on.

    What was done is not done again, what was running is, and in the end there is one result of each.
    """
    statement = kills = 0
    while True:
        statement += 1
        folder = tmp_path / str(statement)
        folder.mkdir()
        path, done = folder / "queue", folder / "done"
        with Queue(path) as queue:
            enter(queue, "ada")
        if not killed_at(path, statement, done, lambda: None):
            break
        kills += 1
        with Queue(path) as queue:
            before = states(queue)
            assert before.count("running") <= 1
            finished = len(queue.runs("dev_test")) + len(queue.runs("hidden"))
            assert finished == before.count("done")
        begun = done.read_text().splitlines() if done.exists() else []
        assert not killed_at(path, 0, done, lambda: None)
        with Queue(path) as queue:
            assert states(queue) == ["done"] * 2
            assert all(list(queue.runs(split)) == [(1, "450 tokens")] for split in SPLITS)
        again = done.read_text().splitlines()[len(begun) :]
        assert len(again) == 2 - finished
        assert len(begun) - finished <= 1  # at most what was running when the worker died
    assert kills > 15


def test_a_kill_in_the_middle_of_an_evaluation(tmp_path: Path) -> None:
    """The entry that was running is queued again by the next run, and done behind those not begun yet."""
    path, done = tmp_path / "queue", tmp_path / "done"
    with Queue(path) as queue:
        enter(queue, "ada")
        enter(queue, "bob")
    assert killed_at(path, 0, done, lambda: os.kill(os.getpid(), signal.SIGKILL))
    with Queue(path) as queue:
        assert states(queue) == ["running", "queued", "queued", "queued"]
    assert not killed_at(path, 0, done, lambda: None)
    assert done.read_text().splitlines() == ["1 dev_test", "2 dev_test", "1 dev_test", "1 hidden", "2 hidden"]


# Taking in


def files(folder: Path, **contents: str) -> Path:
    for name, text in contents.items():
        file = folder / "hw2" / name.replace("_", ".")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder


def test_what_an_entry_is(tmp_path: Path) -> None:
    """A system.py makes a system, a serve.toml a server; without either, or with both, it is refused with one line."""
    rules = load_rules(tmp_path)
    with Queue(tmp_path / "queue") as queue:

        def enter_folder(folder: Path, track: Track | None = None) -> str:
            return submit(queue, tmp_path, rules, folder, "ada", NOON, track=track)[0].track

        assert enter_folder(files(tmp_path / "a", system_py="")) == "systems"
        assert enter_folder(files(tmp_path / "b", serve_toml="")) == "servers"
        both = files(tmp_path / "c", system_py="", serve_toml="")
        with pytest.raises(Refused, match=r"both a system.py and a serve.toml; say which with --track"):
            enter_folder(both)
        assert enter_folder(both, "servers") == "servers"
        with pytest.raises(Refused, match=r"there is no system.py or serve.toml"):
            enter_folder(files(tmp_path / "d", other_py=""))


def test_a_folder_and_its_zip_are_one_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same files of the same student are known again; another student's are another entry; so for the kit's own."""
    rules, folder = load_rules(tmp_path), files(tmp_path / "a", system_py="'''Mine: it is.'''")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(folder / "hw2" / "system.py", "hw2/system.py")
    with Queue(tmp_path / "queue") as queue:
        entry, new = submit(queue, tmp_path, rules, folder, "ada", NOON)
        assert (entry.title, new) == ("Mine", True)
        assert submit(queue, tmp_path, rules, tmp_path / "a.zip", "ada", NOON) == (entry, False)
        assert submit(queue, tmp_path, rules, folder, "bob", NOON)[1]
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        for _ in range(2):
            submit_kit_servers(queue, rules, NOON)
        entries = ["Mine", "Mine", "simple", "improved"]
        assert [one.entry.title for one in queue.evaluations("hidden")] == entries
        monkeypatch.setattr("importlib.util.find_spec", lambda name: name == "vllm" or None)
        submit_kit_servers(queue, rules, NOON)
        *others, last = [one.entry for one in queue.evaluations("hidden")]
        assert [entry.title for entry in others] == entries
        assert (last.title, last.role) == ("ceiling", "ceiling")


@pytest.mark.parametrize(
    ("source", "title"),
    [
        (b'"""Self-consistency: votes.\n\nMore."""', "Self-consistency"),
        (b'"""One sentence."""', "One sentence"),
        (b"def answer(", ""),
        (b"\xff\x00", ""),
        (b"(" * 100_000, ""),
        (b"'''" + b"long " * 50 + b"'''", "long " * 11 + "long…"),
    ],
)
def test_titles(source: bytes, title: str) -> None:
    """A system is called what its file says first, if it is Python at all; nothing is run for it."""
    assert title_of({"hw2/system.py": source}) == title


@pytest.mark.parametrize(
    ("text", "words"), [("title = 3", "Expected `str`"), ("title = ", "Invalid value"), ("", "missing required field")]
)
def test_rules_that_are_wrong(text: str, words: str, tmp_path: Path) -> None:
    """A board's own rules are named with what is wrong with them."""
    (tmp_path / "leaderboard.toml").write_text(text)
    with pytest.raises(UnusableInput, match=words):
        load_rules(tmp_path)


def test_pseudonyms(tmp_path: Path) -> None:
    """They stay through a term and change with it and with the key, which only its owner can read."""
    key = load_key(tmp_path)
    assert load_key(tmp_path) == key
    assert len(key) == 32
    assert (tmp_path / "pseudonyms.key").stat().st_mode & 0o777 == 0o600
    names = {pseudonym(login, term, by) for login in ("ada", "bob") for term in ("fall", "spring") for by in (key, b"")}
    assert len(names) == 8
    assert pseudonym("ada", "fall", key) == pseudonym("ada", "fall", key)
    assert re.fullmatch(r"[a-z]+ [a-z]+ [0-9a-f]{4}", pseudonym("ada", "fall", key))


# A student's server


def test_a_students_server(tmp_path: Path) -> None:
    """Its systems meet the load test once, however often they are asked for, and anew when that is forgotten."""
    servers = ServerRules(baselines=[], seconds=2.0, phases=[Phase(seconds=0.5, rate=30.0)])
    rules = msgspec.structs.replace(load_rules(tmp_path), servers=servers)
    started: list[str] = []

    def on_start(name: str, total: int) -> Callable[[Record], None]:
        started.append(name)
        return lambda record: None

    def hand_in(name: str, answer: str) -> Path:
        package = tmp_path / name / "final_project"
        package.mkdir(parents=True)
        (package / "serve.toml").write_bytes(SERVE)
        (package / "__init__.py").touch()
        (package / "serve.py").write_text(TINY.replace("{answer}", answer).replace("{start}", SERVES))
        return tmp_path / name

    judge = Judge(tmp_path, rules, on_start, lambda entry, what: None)
    with Queue(tmp_path / "queue") as queue:
        entry, _ = submit(queue, tmp_path, rules, hand_in("ada", "return question.upper()"), "ada", NOON)
        forbidden, _ = submit(queue, tmp_path, rules, hand_in("bob", "import vllm"), "bob", NOON)
    first = judge.evaluate(entry, "dev_test")
    run = msgspec.json.decode(first["tiny"], type=Run)
    assert 0 < run.served < run.requests  # it knows no requests of several prompts
    assert sum(task.answers for task in run.tasks.values()) == run.served
    assert sum(len(task.scores) for task in run.tasks.values()) > run.served
    assert run.model.startswith("course-small ")
    assert judge.evaluate(entry, "dev_test") == first
    assert len(started) == 1
    judge.forget(entry, "dev_test")
    assert judge.evaluate(entry, "dev_test") != first
    assert len(started) == 2
    with pytest.raises(Failed, match="imports vllm, which is forbidden"):
        judge.evaluate(forbidden, "dev_test")
    judge.close()


# Boards


@pytest.mark.parametrize("words", HOSTILE)
@pytest.mark.parametrize("staff", [False, True])
def test_what_a_student_writes_is_text(words: str, staff: bool, tmp_path: Path) -> None:
    """Titles, names, systems and reasons do nothing on a page, which loads nothing; and a spreadsheet runs nothing."""
    with Queue(tmp_path / "queue") as queue:
        queue.submit(words, "systems", words, "a", NOON, TODAY, 9)
        queue.submit(words, "servers", words, "b", NOON, TODAY, 9)
        queue.submit(words, "servers", words, "c", NOON, TODAY, 9)

        def evaluate(entry: Entry, split: str) -> Runs:
            if entry.digest == "c":
                raise Failed(words)
            run = run_of(5, variant=words, notes=[words])
            run.model = words
            return {words: msgspec.json.encode(run)}

        work(queue, evaluate, alike, SPLITS)
        board = read_board(queue, "dev_test")
    names = Names("term", b"key", staff)
    page = board_page(board, load_rules(tmp_path), names, staff, "now")
    parsed = Page(page)
    assert parsed.tags.count("script") == 1
    assert parsed.tags.count("style") == 2
    assert not {"img", "iframe", "link"} & set(parsed.tags)
    assert not [key for key, _ in parsed.attributes if key.startswith("on") or key == "src"]
    assert "1337" not in parsed.text
    assert "\x1b" not in page
    assert not re.search(r"https?://", page)
    assert "default-src 'none'" in page
    for column in ("entrant", "title", "variant", "model"):
        assert not board_table(board, names)[column].str.startswith(("=", "+", "-", "@")).any()


def filled(queue: Queue) -> None:
    """Evaluate five entries of which the splits say different things."""
    for student in ("ada", "bob"):
        enter(queue, student)
    enter(queue, "ada", "other files")
    enter(queue, "ada", track="servers")
    enter(queue, "eve")

    def evaluate(entry: Entry, split: str) -> Runs:
        if entry.student == "eve":
            raise Failed(f"reason on {split}")
        run = run_of(entry.id + (3 if split == "hidden" else 0), notes=[f"note on {split}"], tokens=50 * entry.id)
        run.data = f"data of {split}"
        return {run.variant: msgspec.json.encode(run)}

    work(queue, evaluate, alike, SPLITS)


def test_boards_on_disk(tmp_path: Path) -> None:
    """The public folder has pseudonyms and dev-test, and nothing of the hidden split; the staff's has logins too."""
    with Queue(tmp_path / "queue") as queue:
        filled(queue)
        pages = write_boards(queue, tmp_path, load_rules(tmp_path), "now")
    assert [page.parent.name for page in pages] == ["public", "staff"]
    public = {file.name: file.read_text() for file in (tmp_path / "public").rglob("*")}
    assert set(public) == {"index.html", "leaderboard.csv"}
    key = load_key(tmp_path)
    for text in public.values():
        assert pseudonym("ada", load_rules(tmp_path).term, key) in text
        for secret in ("on hidden", "of hidden", "hidden split", "70.0", "0.7,", key.hex()):
            assert secret not in text
    assert "reason on dev_test" in public["index.html"]
    assert "note on dev_test" in public["index.html"]
    staff = (tmp_path / "staff" / "index.html").read_text()
    assert "reason on hidden" in staff
    assert f"ada ({pseudonym('ada', load_rules(tmp_path).term, key)})" in staff
    rows = list(csv.DictReader((tmp_path / "public" / "leaderboard.csv").open()))
    assert [(row["track"], row["place"], row["score"]) for row in rows] == [
        ("systems", "1", "0.3"),
        ("systems", "1", "0.2"),
        ("servers", "1", "0.4"),
    ]
    assert {(row["kit"], row["model"], row["data"]) for row in rows} == {("0.1 k", "m 1", "data of dev_test")}


def test_logins_are_not_on_a_public_board(tmp_path: Path) -> None:
    """A login stands nowhere on the public board, whatever else is there."""
    with Queue(tmp_path / "queue") as queue:
        queue.submit("lovelace-17", "systems", "a title", "digest", NOON, TODAY, 9)
        work(queue, measure, alike, SPLITS)
        write_boards(queue, tmp_path, load_rules(tmp_path), "now")
    for file in (tmp_path / "public").rglob("*"):
        assert "lovelace" not in file.read_text()
    assert "lovelace-17" in (tmp_path / "staff" / "index.html").read_text()


def test_history_and_entries(tmp_path: Path) -> None:
    """Entries are listed, the last first, with state, reason, tasks and versions, and the best score of each track."""
    with Queue(tmp_path / "queue") as queue:
        filled(queue)
        board = read_board(queue, "dev_test")
    text = " ".join(Page(board_page(board, load_rules(tmp_path), Names("t", b"", True), True, "now")).text.split())
    assert "3 entries · systems: best score 30.0 · servers: best score 40.0" in text
    assert text.index("Entry 4: system of ada") < text.index("Entry 3: system of ada") < text.index("Entry 1:")
    assert "a better one is on the board" in text
    assert "failed: reason on dev_test" in text
    assert "Measured with kit 0.1 k, model m 1, data data of dev_test." in text
    for words in ("Mathematics", "Multiple choice", "Open-ended", "To the front", "Latency p99, s", "Diversity"):
        assert words in text


def test_what_an_exception_says_is_for_the_staff(tmp_path: Path) -> None:
    """A system can say in it what it was asked, so the public page has its kind alone."""

    def evaluate(entry: Entry, split: str) -> Runs:
        raise Failed("raised KeyError: the question; raised ValueError: another")

    with Queue(tmp_path / "queue") as queue:
        enter(queue, "ada")
        work(queue, evaluate, alike, SPLITS)
        board = read_board(queue, "dev_test")
    pages = [board_page(board, load_rules(tmp_path), Names("t", b"", staff), staff, "") for staff in (False, True)]
    assert [("failed</span>: raised KeyError" in page, "the question" in page) for page in pages] == [
        (True, False),
        (True, True),
    ]


def test_an_empty_board(tmp_path: Path) -> None:
    """Before anything is measured there is a page too, and an empty table."""
    with Queue(tmp_path / "queue") as queue:
        enter(queue, "ada")
        board = read_board(queue, "dev_test")
    assert "Nothing has been measured yet" in board_page(board, load_rules(tmp_path), Names("t", b"", False), False, "")
    assert board_table(board, Names("t", b"", False)).empty


def test_gradescopes_field(tmp_path: Path) -> None:
    """It lists name, value and order of a student's best row, of the track asked for, as Gradescope reads it."""
    with Queue(tmp_path / "queue") as queue:
        filled(queue)
        write_boards(queue, tmp_path, load_rules(tmp_path), "now")
        board = read_board(queue, "dev_test")
    field = gradescope_leaderboard(board, "ada", "systems")
    assert field[:2] == [
        {"name": "Place", "value": 1, "order": "asc"},
        {"name": "Score", "value": 0.3, "order": "desc"},
    ]
    assert {"name": "Tokens a question", "value": 150.0, "order": "asc"} in field
    assert len({one["name"] for one in field}) == len(field)
    assert gradescope_leaderboard(board, "eve", "systems") == []
    assert json.loads((tmp_path / "staff" / "gradescope" / "ada.systems.json").read_text()) == {"leaderboard": field}


# The command


def invoke(*words: str | Path) -> tuple[int, str]:
    outcome = CliRunner().invoke(app, ["leaderboard", *map(str, words)])
    return outcome.exit_code, " ".join(outcome.output.split())


def test_submitting(tmp_path: Path) -> None:
    """Each submission gets a line; what is refused is named with its reason, and the others are entered."""
    board, received = tmp_path / "board", "2026-11-02T12:00:00+00:00"
    folders = [files(tmp_path / name, system_py=f"'''{name}'''") for name in ("ada", "bob")]
    empty = tmp_path / "eve"
    empty.mkdir()
    code, words = invoke("submit", *folders, empty, "--board", board, "--received", received)
    assert (code, words) == (
        1,
        "refused: eve: there is no system.py or serve.toml ada: entered entry 1, systems bob: entered entry 2, systems",
    )
    for day, expected in enumerate((0, 0, 0, 1)):
        file = files(tmp_path / "ada", system_py=f"{day}")
        code, words = invoke("submit", file, "--board", board, "--student", "max", "--received", received)
        assert code == expected
    assert words == "refused: max: 3 of 3 entries of 2026-11-02 are used; the next one can come tomorrow"
    tomorrow = (NOON + timedelta(days=1)).isoformat()
    assert invoke("submit", file, "--board", board, "--student", "max", "--received", tomorrow)[0] == 0


def test_commands_refuse_with_one_line(tmp_path: Path) -> None:
    """What cannot be used exits with 2 and says what to do."""
    code, words = invoke("build", "--board", tmp_path)
    assert code == 2
    assert "is no board yet; enter something with `grader leaderboard submit`" in words
    assert invoke("run", "--board", tmp_path, "--split", "test")[0] == 2
    assert invoke("submit", tmp_path, tmp_path, "--student", "ada", "--board", tmp_path)[0] == 2


RULES = """
title = "Tiny"
term = "test"
time_zone = "UTC"
entries_per_day = 3
systems = { model = "course-small", token_budgets = [200, 300], questions = 1, seconds_per_question = 60.0 }
servers = { baselines = ["simple"], seconds = 4.0, phases = [{ seconds = 1.0, rate = 3.0 }] }
"""
FORGES = '''"""Accuracy 100 %, place 1."""
import json

import hw2.greedy


def answer(prompts, engine):
    forged = {"accuracy": 1.0, "score": 1.0, "tokens": 0, "state": "done", "place": 1}
    print(json.dumps(forged), flush=True)
    for path in ("/tmp/result.json", "results.json", "../leaderboard.sqlite", "/submission/result.json"):
        try:
            open(path, "w").write(json.dumps(forged))
        except OSError:
            pass
    try:
        engine.usage.generated_tokens = -1000
    except BaseException:
        pass
    return hw2.greedy.answer(prompts, engine)
'''


@pytest.mark.slow
def test_a_board_from_end_to_end(tmp_path: Path) -> None:
    """Real systems and a server fill a board; one that prints and writes scores of its own has those of its answers.

    The same commands again measure nothing again, unless they are told to: then the clock shows another time.
    """
    board = tmp_path / "board"
    board.mkdir()
    (board / "leaderboard.toml").write_text(RULES)
    greedy = (EXAMPLES / "greedy" / "hw2" / "system.py").read_text()
    forger = files(tmp_path / "forger", system_py=FORGES, greedy_py=greedy)
    assert invoke("submit", EXAMPLES / "greedy", EXAMPLES / "raises", forger, "--board", board)[0] == 0
    code, words = invoke("run", "--board", board, "--split", "dev_test")
    assert code == 0, words
    assert invoke("build", "--board", board)[0] == 0
    with Queue(board / "leaderboard.sqlite") as queue:
        first = read_board(queue, "dev_test")
    assert [(one.state, one.reason) for one in first.evaluations] == [
        ("done", ""),
        ("failed", "raised KeyError: 'no idea'"),
        ("done", ""),
        ("done", ""),
    ]
    systems, servers = first.standings
    runs = {(row.entry.student, row.run.variant): row.run for row in systems.rows}
    for budget in ("200 tokens", "300 tokens"):
        honest, forged = runs["greedy", budget], runs["forger", budget]
        assert (forged.tasks, forged.tokens, forged.served) == (honest.tasks, honest.tokens, honest.served)
        assert honest.tokens > 0
    assert servers.rows[0].run.served > 0
    assert invoke("run", "--board", board, "--split", "dev_test")[0] == 0
    with Queue(board / "leaderboard.sqlite") as queue:
        assert read_board(queue, "dev_test") == first
    assert invoke("run", "--board", board, "--split", "dev_test", "--again", "1")[0] == 0
    with Queue(board / "leaderboard.sqlite") as queue:
        anew = {row.run.variant: row.run for row in read_board(queue, "dev_test").standings[0].every[:2]}
    for budget, run in anew.items():
        assert (run.tasks, run.tokens) == (runs["greedy", budget].tasks, runs["greedy", budget].tokens)
        assert run.throughput != runs["greedy", budget].throughput
