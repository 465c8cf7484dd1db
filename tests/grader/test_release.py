"""What students get: all that they need, and nothing that is the staff's."""

import ast
import contextlib
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from final_project.summary import load_questions
from final_project.trace import Phase, Request, draw_trace, write_trace
from grader.assignment import FOLDER, load_assignment
from grader.cli import app
from grader.reference.final_project.engine import tell
from grader.release import build
from grader.release.build import contents, leaks, release
from grader.serving.rules import CONFIGURATION
from grader.submissions import collect

KIT = Path(__file__).parents[2]
HIDDEN_SETS = KIT / "grader" / "hidden" / "shared_tasks"
ASSIGNMENTS = sorted(path.stem for path in FOLDER.glob("*.toml"))
HOMEWORKS = [name for name in ASSIGNMENTS if load_assignment(name).problems]


def unpacked(assignment: str, folder: Path) -> Path:
    release(load_assignment(assignment), folder / "release.tar.gz")
    with tarfile.open(folder / "release.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    return folder / f"{assignment}-release"


def run(release: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python in an unpacked release, whose own packages come first."""
    environment = os.environ | {"PYTHONPATH": str(release), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=release, env=environment, capture_output=True, text=True, check=False
    )


def solve(release: Path, assignment: str) -> None:
    """Drop the references in place of the stubs."""
    for module in load_assignment(assignment).modules:
        shutil.copy(KIT / "grader" / "reference" / assignment / f"{module}.py", release / assignment)


def secret_lines() -> set[str]:
    """Return the lines, long enough to mean something, that stand in the grader and nowhere in what is public."""
    public = {
        line.strip()
        for folder in ("hw1", "hw2", "hw3", "final_project", "shared_tasks", "docs")
        for path in (KIT / folder).rglob("*.*")
        if path.suffix in (".py", ".md")
        for line in path.read_text().splitlines()
    }
    files = [path for place in ("reference", "hidden", "examples") for path in (KIT / "grader" / place).rglob("*.py")]
    lines = {line.strip() for path in files for line in path.read_text().splitlines()}
    return {line for line in lines if len(line) > 30 and line not in public}


def asked(line: str) -> str:
    """Return what makes an item of a set: its question or prompt, and its choices."""
    item = json.loads(line)
    return json.dumps([item.get("question") or item["prompt"], item.get("choices")])


@pytest.mark.parametrize("assignment", ASSIGNMENTS)
def test_nothing_of_the_staff_is_in_it(assignment: str) -> None:
    """No line that is the grader's alone, no hidden item and no key is in the archive."""
    files = contents(load_assignment(assignment))
    texts = {name: data.decode() for name, data in files.items() if not name.endswith((".safetensors", ".png"))}
    secrets = secret_lines()
    assert len(secrets) > 5000
    for name, text in texts.items():
        assert not secrets & {line.strip() for line in text.splitlines()}, name
    hidden = [line for path in HIDDEN_SETS.rglob("*.jsonl") for line in path.read_text().splitlines()]
    assert len(hidden) > 900
    given = {asked(line) for name, text in texts.items() if name.endswith(".jsonl") for line in text.splitlines()}
    assert not given & {asked(line) for line in hidden}
    assert (HIDDEN_SETS / "seed.txt").read_text().strip() not in "\n".join(texts.values())


@pytest.mark.parametrize("assignment", ASSIGNMENTS)
def test_only_what_is_listed_is_in_it(assignment: str) -> None:
    """The archive holds the homework, shared_tasks and the papers, and of the grader not one file as it is."""
    tops = {name.split("/")[0] for name in contents(load_assignment(assignment))}
    papers = {
        "LICENSE",
        "Makefile",
        "README.md",
        "constraints.txt",
        "docs",
        "pyproject.toml",
        "submit.json",
        "submit.py",
    }
    assert tops == {assignment, "shared_tasks", *papers}


@pytest.mark.parametrize("assignment", HOMEWORKS)
def test_what_was_left_lying_is_found(assignment: str) -> None:
    """A reference in place of a stub, or a hidden test among the public ones, is found in every module."""
    wanted = load_assignment(assignment)
    assert leaks(contents(wanted)) == []
    grader = KIT / "grader"
    planted = {f"{assignment}/{m}.py": grader / "reference" / assignment / f"{m}.py" for m in wanted.modules}
    planted |= {
        f"{assignment}/tests/test_{m}.py": grader / "hidden" / assignment / f"test_{m}.py" for m in wanted.modules
    }
    found = leaks({name: path.read_bytes() for name, path in planted.items()})
    assert {line.rpartition(" in ")[2] for line in found} == set(planted)


@pytest.mark.parametrize("module", ["engine", "baselines"])
def test_a_reference_server_left_lying_is_found(module: str) -> None:
    """The reference's engine in place of the stub is found, and so are the baselines under another name."""
    reference = KIT / "grader" / "reference" / "final_project" / f"{module}.py"
    assert leaks({"final_project/mine.py": reference.read_bytes()})


def test_hidden_questions_left_lying_are_found() -> None:
    """A trace of the hidden split, as a load test leaves it in its folder, is found; one of the dev split is none."""
    traces = {}
    for name, data in (("hidden", HIDDEN_SETS), ("dev", None)):
        pools, _ = load_questions("dev" if data is None else None, data)
        trace = draw_trace([Phase(1, 5)], pools, seed=0)
        traces[f"final_project/runs/{name}/trace.jsonl"] = b"".join(msgspec.json.encode(one) + b"\n" for one in trace)
    assert leaks(traces) == ["hidden questions in final_project/runs/hidden/trace.jsonl"]


def test_a_leak_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One reference function at the end of a stub is enough: the command names it and writes nothing."""
    reference = (KIT / "grader" / "reference" / "hw1" / "scoring.py").read_text()
    function = reference[reference.index("def perplexity") :].split("\n\n\n")[0]
    files = contents(load_assignment("hw1"))
    files["hw1/scoring.py"] += function.encode()
    monkeypatch.setattr(build, "contents", lambda assignment: files)
    done = CliRunner().invoke(app, ["release", "hw1", "--out", str(tmp_path / "hw1.tar.gz")])
    assert done.exit_code == 2
    assert "perplexity of grader/reference/hw1/scoring.py in hw1/scoring.py" in " ".join(done.output.split())
    assert not (tmp_path / "hw1.tar.gz").exists()


def test_the_same_kit_gives_the_same_bytes(tmp_path: Path) -> None:
    """Two builds are equal, so that a release can be told by its hash."""
    for name in ("one", "two"):
        release(load_assignment("hw1"), tmp_path / f"{name}.tar.gz")
    assert (tmp_path / "one.tar.gz").read_bytes() == (tmp_path / "two.tar.gz").read_bytes()


@pytest.mark.parametrize("assignment", ASSIGNMENTS)
def test_links_lead_to_what_is_in_it(assignment: str) -> None:
    """A relative link in a document of the archive leads to a file of the archive."""
    files = contents(load_assignment(assignment))
    for name in (name for name in files if name.endswith(".md")):
        for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", files[name].decode()):
            path = os.path.normpath(os.path.join(os.path.dirname(name), target))
            assert any(file == path or file.startswith(path + "/") for file in files), f"{name} links to {target}"


@pytest.mark.parametrize("assignment", ASSIGNMENTS)
def test_what_it_imports_is_installed_with_it(assignment: str) -> None:
    """Packages that a file imports come with what the archive requires; Triton and vLLM are optional."""
    files = contents(load_assignment(assignment))
    project = tomllib.loads(files["pyproject.toml"].decode())["project"]
    required = [re.split(r"[^\w.-]", name)[0] for name in project["dependencies"]]
    distributions = set()
    while required:
        name = re.sub(r"[-_.]+", "-", required.pop()).lower()
        if name not in distributions:
            distributions.add(name)
            with contextlib.suppress(PackageNotFoundError):
                needed = requires(name) or []
                required += [re.split(r"[^\w.-]", line)[0] for line in needed if "extra ==" not in line]
    own = {name.split("/")[0].removesuffix(".py") for name in files} | {"triton", "vllm"}
    where = packages_distributions()
    for name in (name for name in files if name.endswith(".py")):
        for node in ast.walk(ast.parse(files[name])):
            imported = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            imported += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for package in {module.split(".")[0] for module in imported} - own - sys.stdlib_module_names:
                found = {re.sub(r"[-_.]+", "-", one).lower() for one in where.get(package, [])}
                assert found & distributions, f"{name} imports {package}, which the archive does not require"


def test_the_command_says_what_it_wrote(tmp_path: Path) -> None:
    """`grader release` writes the archive; an unknown assignment is one line and exit status 2."""
    done = CliRunner().invoke(app, ["release", "hw1", "--out", str(tmp_path / "hw1.tar.gz")])
    assert done.exit_code == 0
    assert "files" in done.stdout
    assert CliRunner().invoke(app, ["release", "hw9", "--out", str(tmp_path / "x.tar.gz")]).exit_code == 2


@pytest.mark.slow
@pytest.mark.parametrize("assignment", HOMEWORKS)
def test_stubs_fail_and_references_pass(assignment: str, tmp_path: Path) -> None:
    """In the unpacked archive every public test fails on the stubs, and passes with the references in their place."""
    folder = unpacked(assignment, tmp_path)
    command = ("-m", "pytest", "-q", "--tb=no", "-p", "no:cacheprovider", assignment)
    before = run(folder, *command).stdout.splitlines()[-1]
    assert "failed" in before
    assert "passed" not in before
    solve(folder, assignment)
    after = run(folder, *command).stdout.splitlines()[-1]
    assert "passed" in after
    assert "failed" not in after
    assert "error" not in after


@pytest.mark.slow
def test_what_submit_packs_the_grader_takes(tmp_path: Path) -> None:
    """`make submit` writes a zip that intake takes as it is, under the student's id, with every module."""
    folder = unpacked("hw1", tmp_path)
    solve(folder, "hw1")
    done = run(folder, "submit.py", "hw1", "--id", "ada")
    assert done.returncode == 0, done.stderr
    assert "6 of 6 modules have no stub left" in done.stdout
    (submission,) = collect([folder / "ada.zip"], load_assignment("hw1"))
    assert (submission.name, submission.refusal) == ("ada", "")
    modules = {f"hw1/{module}.py" for module in load_assignment("hw1").modules}
    assert modules <= set(submission.files)
    assert "hw1/answers.md" in submission.ignored


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda hw: (hw / "scoring.py").unlink(), "hw1/scoring.py is missing"),
        (lambda hw: (hw / "sampling.py").write_text("def f(:\n"), "hw1/sampling.py: SyntaxError"),
        (lambda hw: (hw / "sampling.py").write_text("import transformers\n"), "hw1/sampling.py:1: transformers is not"),
    ],
)
def test_submit_refuses_what_could_not_be_graded(spoil, reason: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """A missing module, a syntax error or a package that is not there is one line, and no zip is written."""
    folder = unpacked("hw1", tmp_path)
    spoil(folder / "hw1")
    done = run(folder, "submit.py", "hw1", "--id", "ada")
    assert done.returncode == 1
    assert reason in done.stderr
    assert not (folder / "ada.zip").exists()


def test_submit_wants_an_id(tmp_path: Path) -> None:
    """Without an id, or with one that is no file name, submit says what it expected."""
    folder = unpacked("hw1", tmp_path)
    for name in ("", "../ada"):
        done = run(folder, "submit.py", "hw1", "--id", name)
        assert done.returncode == 1
        assert "expected a student id" in done.stderr


def write_an_engine(package: Path) -> None:
    """Drop the improved baseline in place of the stub, and enter it."""
    reference = KIT / "grader" / "reference" / "final_project"
    imports = "from collections.abc import Sequence\nfrom jaxtyping import Float\nfrom torch import Tensor\n"
    engine = (reference / "baselines.py").read_text()
    needed = inspect.getsource(tell)
    line = "from grader.reference.final_project.engine import tell\n"
    assert line in engine
    own = engine.replace(line, imports + "from final_project.interface import Token\n") + "\n\n" + needed
    (package / "engine.py").write_text(own)
    serve = (package / "serve.toml").read_text()
    serve = serve.replace("engine:Engine", "engine:StaticBatchingEngine").replace(
        "max_batch_size = 64", "max_batch_size = 16, window = 0.05"
    )
    (package / "serve.toml").write_text(serve)


class TestFinalProject:
    """The archive of the final project, from the stub to the load test."""

    def test_what_is_in_it(self) -> None:
        """Handout, skeleton, load generator, public tests and the list of what is forbidden are in it, whole."""
        files = contents(load_assignment("final_project"))
        names = """README.md __init__.py answers.py app.py configuration.py engine.py interface.py load.py metrics.py
            protocol.py rules.toml runner.py serve.py serve.toml summary.py tests/test_protocol.py texts.py trace.py"""
        assert [name for name in files if name.startswith("final_project/")] == [
            f"final_project/{name}" for name in names.split()
        ]
        for name in files:
            if name.startswith("final_project/"):
                assert files[name] == (KIT / name).read_bytes()
        assert {"course-base", "course-small"} <= {Path(name).parent.name for name in files}

    @pytest.mark.slow
    def test_the_stub_fails(self, tmp_path: Path) -> None:
        """In the unpacked archive no public test passes before an engine is written, and the stub's error is seen."""
        folder = unpacked("final_project", tmp_path)
        before = run(folder, "-m", "pytest", "-q", "-p", "no:cacheprovider", "final_project").stdout
        assert "passed" not in before.splitlines()[-1]
        assert "NotImplementedError" in before

    @pytest.mark.slow
    def test_from_an_engine_to_the_load_test(self, tmp_path: Path) -> None:
        """With an engine the public tests pass; the zip that submit writes goes through the load test as it is."""
        folder = unpacked("final_project", tmp_path)
        write_an_engine(folder / "final_project")
        (folder / "final_project" / "weights").mkdir()
        (folder / "final_project" / "weights" / "model.safetensors").write_bytes(b"\0" * 9)
        done = run(folder, "submit.py", "final_project", "--id", "ada")
        assert done.returncode == 0, done.stderr
        assert "failed" not in done.stdout
        assert "error" not in done.stdout
        with zipfile.ZipFile(folder / "ada.zip") as packed:
            names = packed.namelist()
        assert "final_project/weights/model.safetensors" in names
        assert not [name for name in names if "/tests/" in name or "__pycache__" in name]
        single = [Request(0.1 * i, [[{"role": "user", "content": f"What is {i} + 1?"}]], 4) for i in range(3)]
        write_trace(tmp_path / "trace.jsonl", single)
        text = CONFIGURATION.read_text().replace("seconds = 65.0", "seconds = 20.0")
        (tmp_path / "test.toml").write_text(text)
        words = ["serve-test", str(folder / "ada.zip"), "--out", str(tmp_path / "out"), "--no-baselines", "--json"]
        words += ["--trace", str(tmp_path / "trace.jsonl"), "--config", str(tmp_path / "test.toml")]
        tested = CliRunner().invoke(app, words)
        assert tested.exit_code == 0, tested.output
        (result,) = json.loads(tested.stdout)
        assert (result["student"], result["failure"], result["summary"]["served"]) == ("ada", "", 3)

    @pytest.mark.parametrize(
        ("spoil", "reason"),
        [
            (lambda package: (package / "serve.toml").unlink(), "final_project/serve.toml is missing"),
            (lambda package: (package / "extra.py").write_text("def f(:\n"), "final_project/extra.py: SyntaxError"),
            (lambda package: (package / "extra.py").write_text("import vllm\n"), "extra.py:1: vllm is not there"),
        ],
    )
    def test_submit_refuses_what_could_not_be_served(self, spoil, reason: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
        """Without serve.toml, with a syntax error or a package that is not there, no zip is written."""
        folder = unpacked("final_project", tmp_path)
        spoil(folder / "final_project")
        done = run(folder, "submit.py", "final_project", "--id", "ada")
        assert done.returncode == 1
        assert reason in done.stderr
        assert not (folder / "ada.zip").exists()

    def test_it_is_not_graded_by_tests(self, tmp_path: Path) -> None:
        """`grader grade final_project` says which command grades it, and exits with 2."""
        done = CliRunner().invoke(app, ["grade", "final_project", str(tmp_path), "--out", str(tmp_path / "out")])
        assert done.exit_code == 2
        assert "grader serve-test" in " ".join(done.output.split())
