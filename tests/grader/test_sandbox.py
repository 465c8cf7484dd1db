"""The sandbox: what a submission cannot do, and what it costs to try."""

import socket
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from grader.assignment import Assignment, load_assignment
from grader.results import Outcome
from grader.sandbox.remote import NoAnswer, RemoteFunction, SubmissionError, class_interfaces
from grader.sandbox.sandbox import Sandbox
from shared_tasks.models.engine import Completion, Generation, LogLikelihood, Prompt, SamplingParams, Usage
from shared_tasks.models.language_model import CountingModel
from shared_tasks.models.randomness import enumerate_outcomes
from shared_tasks.models.toy import TableModel

HOSTILE = Path(__file__).parent / "hostile"
MEBIBYTE = 1 << 20


@pytest.fixture(scope="module")
def assignment() -> Assignment:
    return load_assignment("hw1")


@pytest.fixture(scope="module")
def worker(assignment: Assignment) -> Iterator[Sandbox]:
    limits = msgspec.structs.replace(assignment.limits, test_cpu_seconds=4.0, memory_bytes=512 * MEBIBYTE)
    kit = [*assignment.kit, "shared_tasks/models/engine.py"]
    sandbox = Sandbox(HOSTILE, assignment.packages, kit, limits, class_interfaces([]))
    yield sandbox
    sandbox.close()


@pytest.fixture
def sandbox(worker: Sandbox) -> Sandbox:
    worker.start_group()
    worker.begin_test(5.0)
    return worker


def call(sandbox: Sandbox, name: str, *arguments: Any) -> Any:
    return RemoteFunction(f"hw1.attacks:{name}", sandbox.call)(*arguments)


def outcome_of(sandbox: Sandbox, name: str, *arguments: Any) -> Outcome:
    with pytest.raises(NoAnswer) as stopped:
        call(sandbox, name, *arguments)
    return stopped.value.outcome


def works_afterwards(sandbox: Sandbox) -> bool:
    sandbox.start_group()
    sandbox.begin_test(5.0)
    return bool(call(sandbox, "double", 21) == 42)


class EchoEngine:
    """An engine that repeats the prompt, and keeps what it was asked."""

    name = "echo"
    has_chat_template = True

    def __init__(self) -> None:
        self.usage = Usage()
        self.asked: list[tuple[Sequence[Prompt], object]] = []

    def fingerprint(self) -> str:
        return "echo"

    def count_tokens(self, prompt: Prompt, continuation: str = "") -> int:
        return 2

    def generate(self, prompts: Sequence[Prompt], params: SamplingParams, on_done: object = None) -> list[Generation]:
        self.asked.append((prompts, params))
        return [
            Generation(2, [Completion(f"{prompt} {i}", [1, 2], [-0.5, -0.25], "stop") for i in range(params.n)], 0.1)
            for prompt in prompts
        ]

    def loglikelihood(
        self, contexts: Sequence[Prompt], continuations: Sequence[str], on_done: object = None
    ) -> list[LogLikelihood]:
        raise NotImplementedError


class TestWhatItSees:
    def test_no_file_of_the_judge(self, sandbox: Sandbox) -> None:
        """No hidden test, reference or store is anywhere in the file system."""
        assert call(sandbox, "files_of_the_judge") == []

    def test_only_allowed_packages(self, sandbox: Sandbox) -> None:
        """torch can be imported; the judge, transformers and pytest cannot."""
        names = ["torch", "grader", "grader.reference", "transformers", "tokenizers", "pytest", "psutil", "pandas"]
        assert call(sandbox, "importable", names) == ["torch"]

    def test_an_empty_environment(self, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
        """No variable of the judge's environment is passed on, but for what numerical libraries need."""
        names = set(call(sandbox, "environment"))
        known = {"HOME", "LANG", "PWD", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "LC_CTYPE"}
        assert {name for name in names - known if not name.startswith(("OPENBLAS", "KMP", "TORCH"))} == set()

    def test_no_other_process(self, sandbox: Sandbox) -> None:
        """Only the worker and the group's own process are visible."""
        assert len(call(sandbox, "visible_processes")) == 2

    def test_no_rights(self, sandbox: Sandbox) -> None:
        """The user is nobody and has no capability."""
        assert call(sandbox, "identity") == [65534, 65534, "0000000000000000"]

    def test_no_network(self, sandbox: Sandbox) -> None:
        """Not even a server on this machine can be reached."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            assert call(sandbox, "reach_the_network", server.getsockname()[1]) == []

    def test_nothing_writable_but_tmp(self, sandbox: Sandbox) -> None:
        """System, packages, submission and devices are read-only."""
        assert call(sandbox, "writable_places") == []

    def test_dangerous_system_calls(self, sandbox: Sandbox) -> None:
        """Calls that escape the limits, or reach other processes, are refused."""
        refused = call(sandbox, "refused_system_calls")
        assert refused == {"memfd_create": "EPERM", "shmget": "EPERM", "unshare": "EPERM", "ptrace": "EPERM"}


class TestWhatItMayTake:
    def test_wall_time(self, sandbox: Sandbox) -> None:
        """A sleeper that catches every exception is stopped at its wall time."""
        sandbox.begin_test(0.5)
        assert outcome_of(sandbox, "sleep_for_ever") is Outcome.TIMEOUT
        assert works_afterwards(sandbox)

    def test_infinite_loop(self, sandbox: Sandbox) -> None:
        """A busy loop that catches every exception is stopped too."""
        sandbox.begin_test(0.5)
        assert outcome_of(sandbox, "loop_for_ever") is Outcome.TIMEOUT
        assert works_afterwards(sandbox)

    def test_cpu_time_of_all_processes(self, sandbox: Sandbox) -> None:
        """CPU time is summed over processes: two busy cores reach the limit before the wall time does."""
        sandbox.begin_test(60.0)
        assert outcome_of(sandbox, "burn_in_processes") is Outcome.TIMEOUT
        assert "CPU" in str(sandbox.stopped)

    @pytest.mark.parametrize("name", ["hog_memory", "hog_shared_memory"])
    def test_memory(self, sandbox: Sandbox, name: str) -> None:
        """Private and shared memory are bounded, by a MemoryError or by being stopped."""
        try:
            outcome = outcome_of(sandbox, name)
        except MemoryError:
            outcome = Outcome.MEMORY
        assert outcome is Outcome.MEMORY
        assert sandbox.usage.peak_memory_bytes < 1024 * MEBIBYTE
        assert works_afterwards(sandbox)

    def test_memory_of_tensors(self, sandbox: Sandbox) -> None:
        """A tensor beyond the limit cannot be allocated."""
        with pytest.raises(RuntimeError, match="memory"):
            call(sandbox, "hog_memory_with_torch")

    @pytest.mark.parametrize("name", ["fork_bomb", "thread_bomb"])
    def test_processes(self, sandbox: Sandbox, name: str) -> None:
        """Bombs of processes and of threads are stopped, and nothing of them is left."""
        assert outcome_of(sandbox, name) is Outcome.PROCESSES
        assert works_afterwards(sandbox)
        assert len(call(sandbox, "visible_processes")) == 2

    @pytest.mark.parametrize("folder", ["/tmp", "/dev/shm"])
    def test_disk(self, sandbox: Sandbox, folder: str) -> None:
        """What can be written is bounded, and the next group finds the room it needs."""
        assert 0 < call(sandbox, "fill", folder) <= sandbox.limits.disk_bytes

    def test_open_files(self, sandbox: Sandbox) -> None:
        """The number of open files is bounded."""
        assert call(sandbox, "open_many_files") < sandbox.limits.open_files

    def test_output(self, sandbox: Sandbox) -> None:
        """A flood of output is counted and dropped beyond the limit; the answer still arrives."""
        assert call(sandbox, "flood_the_output", 100) == "done"
        text, size = sandbox.end_test()
        assert len(text) == sandbox.limits.output_bytes
        assert size == 100 * MEBIBYTE

    def test_leftover_processes(self, sandbox: Sandbox) -> None:
        """A process left behind is gone when the next group starts."""
        call(sandbox, "leave_a_process_behind")
        assert works_afterwards(sandbox)
        assert len(call(sandbox, "visible_processes")) == 2


class TestHowItDies:
    def test_segmentation_fault(self, sandbox: Sandbox) -> None:
        """A segmentation fault is told by name and costs that group alone."""
        assert outcome_of(sandbox, "segfault") is Outcome.CRASHED
        assert "Segmentation fault" in str(sandbox.stopped)
        assert works_afterwards(sandbox)

    def test_quiet_exit(self, sandbox: Sandbox) -> None:
        """Ending the process with exit code 0 is no answer."""
        assert outcome_of(sandbox, "leave_quietly") is Outcome.CRASHED
        assert "exit code 0" in str(sandbox.stopped)

    def test_worker_out_of_reach(self, sandbox: Sandbox) -> None:
        """The worker's memory and files cannot be read, and signals do not end it."""
        assert call(sandbox, "touch_the_worker") == []
        assert works_afterwards(sandbox)

    def test_broken_worker_is_replaced(self, sandbox: Sandbox) -> None:
        """A submission that starves its worker of files gets a new worker for the next group."""
        call(sandbox, "starve_the_worker")
        assert works_afterwards(sandbox)

    def test_stopped_group_stays_stopped(self, sandbox: Sandbox) -> None:
        """After a stop every further call of the group fails the same way."""
        outcome_of(sandbox, "leave_quietly")
        assert outcome_of(sandbox, "double", 1) is Outcome.CRASHED


class TestWhatComesBack:
    @pytest.mark.parametrize(
        ("name", "kind"),
        [("exit_politely", "SystemExit"), ("interrupt", "KeyboardInterrupt"), ("pretend_to_skip", "Skipped")],
    )
    def test_exceptions_that_mean_something_to_pytest(self, sandbox: Sandbox, name: str, kind: str) -> None:
        """Exits, interrupts and skips arrive as ordinary errors of the submission."""
        with pytest.raises(SubmissionError) as error:
            call(sandbox, name)
        assert error.value.raised.name == kind  # type: ignore[attr-defined]

    def test_builtin_exceptions(self, sandbox: Sandbox) -> None:
        """Python's own exceptions keep their type, message and the submission's lines."""
        with pytest.raises(ZeroDivisionError, match="division") as error:
            call(sandbox, "divide", 1, 0)
        (line,) = error.value.raised.traceback  # type: ignore[attr-defined]
        assert (line.file, line.function, line.source) == ("hw1/attacks.py", "divide", "return a / b")

    @pytest.mark.parametrize("name", ["equal_to_everything", "generator"])
    def test_foreign_objects(self, sandbox: Sandbox, name: str) -> None:
        """Objects of unknown types do not cross."""
        assert outcome_of(sandbox, name) is Outcome.PROTOCOL

    def test_lying_tensor(self, sandbox: Sandbox) -> None:
        """A tensor subclass arrives as a plain tensor, or not at all."""
        try:
            tensor = call(sandbox, "lying_tensor")
        except (NoAnswer, TypeError, AttributeError, SubmissionError):
            return
        assert type(tensor) is torch.Tensor
        assert tensor.tolist() == [0.0, 0.0, 0.0]

    def test_lying_number(self, sandbox: Sandbox) -> None:
        """Of a subclass of float that equals everything, the plain number crosses."""
        number = call(sandbox, "lying_number")
        assert type(number) is float
        assert number != 42.0

    def test_kin_of_plain_values(self, sandbox: Sandbox) -> None:
        """Shapes, counters and numpy's numbers and arrays cross as Python's and torch's own."""
        shape, counter, number, array = call(sandbox, "kin_of_plain_values")
        assert type(shape) is tuple
        assert shape == (2, 3)
        assert type(counter) is dict
        assert counter == {"a": 2, "b": 1}
        assert type(number) is float
        assert number == 0.5
        assert torch.equal(array, torch.arange(3))

    def test_deep_nesting(self, sandbox: Sandbox) -> None:
        """Lists nested beyond the limit do not cross."""
        assert call(sandbox, "nested", 5) == [[[[[[]]]]]]
        assert outcome_of(sandbox, "nested", 500) is Outcome.PROTOCOL

    @pytest.mark.parametrize(
        "data",
        [
            b"\xc1",
            b"\x91" * 5000,
            msgspec.msgpack.encode(["return", {"tensor": ["float32", [2**40], b""]}, None]),
            msgspec.msgpack.encode(["return", {"object": [1, "os:system"]}, None]),
            msgspec.msgpack.encode(["return", {"pickle": b"x"}, None]),
            msgspec.msgpack.encode(["return"]),
            msgspec.msgpack.encode({"a": 1}),
            msgspec.msgpack.encode(["raise", ["ValueError"]]),
        ],
    )
    def test_forged_bytes(self, sandbox: Sandbox, data: bytes) -> None:
        """Bytes that are no well-formed answer end the group."""
        assert outcome_of(sandbox, "write_to_the_judge", data) is Outcome.PROTOCOL
        assert works_afterwards(sandbox)

    def test_announced_size(self, sandbox: Sandbox) -> None:
        """An answer that announces exabytes is refused before anything is allocated."""
        assert outcome_of(sandbox, "announce_a_huge_message") is Outcome.PROTOCOL

    def test_output_is_captured(self, sandbox: Sandbox) -> None:
        """What a call prints on both streams is there when it returns."""
        assert call(sandbox, "say", "hello") == 5
        assert sandbox.end_test() == ("hello\nhello\n", 12)

    def test_state_of_a_group(self, sandbox: Sandbox) -> None:
        """State lives as long as the group and no longer: a poisoned torch is whole again in the next."""
        assert [call(sandbox, "number_of_calls") for _ in range(2)] == [1, 2]
        call(sandbox, "poison")
        assert call(sandbox, "total", torch.ones(3)).item() == 42.0
        assert works_afterwards(sandbox)
        assert call(sandbox, "number_of_calls") == 1
        assert call(sandbox, "total", torch.ones(3)).item() == 3.0


class TestWhatIsLent:
    def test_calling_for_ever(self, sandbox: Sandbox) -> None:
        """A submission that calls what it was lent again and again, and is never waited for, has its time too."""
        sandbox.begin_test(1.0)
        assert outcome_of(sandbox, "call_for_ever", lambda: 0) is Outcome.TIMEOUT
        assert works_afterwards(sandbox)

    def test_model(self, sandbox: Sandbox) -> None:
        """A lent model is used through its interface, and its calls are counted in the judge."""
        model = CountingModel(TableModel.random(vocab_size=3, depth=2, seed=0))
        size, end, sums = call(sandbox, "use", model)
        assert (size, end, model.calls, model.contexts) == (3, 0, 1, 2)
        torch.testing.assert_close(sums, torch.ones(2, dtype=torch.float64))

    def test_model_from_threads(self, sandbox: Sandbox) -> None:
        """A submission may use a lent model from several threads."""
        assert call(sandbox, "use_from_threads", TableModel.random(vocab_size=3, depth=2, seed=0)) == 80

    def test_nothing_but_the_interface(self, sandbox: Sandbox) -> None:
        """Methods, attributes and objects that were not lent are refused."""
        answers = call(sandbox, "ask_for_more", TableModel.random(vocab_size=3, depth=2, seed=0))
        assert set(answers.values()) <= {"WireError", "RuntimeError", "AttributeError"}

    def test_functions_and_randomness(self, sandbox: Sandbox) -> None:
        """Functions of the test run in the judge, functions of the submission in the sandbox, or through each other."""
        double = RemoteFunction("hw1.attacks:double", sandbox.call)
        assert call(sandbox, "apply", lambda value: value + 1, 1) == 2
        assert call(sandbox, "apply", double, 4) == 8
        assert call(sandbox, "apply", lambda value: double(value) + 1, 4) == 9
        distribution = enumerate_outcomes(
            lambda rng: int(call(sandbox, "apply", rng.categorical, torch.tensor([0.25, 0.75])))
        )
        assert distribution == {0: 0.25, 1: 0.75}

    def test_engine(self, sandbox: Sandbox) -> None:
        """A lent engine gets the submission's parameters as they were made, and its completions arrive whole."""
        engine = EchoEngine()
        completion = call(sandbox, "ask_the_engine", engine, "Say hello")
        assert engine.asked == [(["Say hello"], SamplingParams(n=2, max_tokens=3, seed=1, stop=("!",)))]
        assert completion == Completion("Say hello 1", [1, 2], [-0.5, -0.25], "stop")

    def test_record_of_wrong_types(self, sandbox: Sandbox) -> None:
        """A record whose fields are not of their types does not cross."""
        assert outcome_of(sandbox, "record_of_wrong_types") is Outcome.PROTOCOL

    def test_death_while_the_judge_is_asked(self, sandbox: Sandbox) -> None:
        """A submission that dies inside a nested call ends the test, not the judge."""
        leave = RemoteFunction("hw1.attacks:leave_quietly", sandbox.call)
        assert outcome_of(sandbox, "apply", lambda value: leave(), 1) is Outcome.CRASHED

    def test_changes_in_place(self, sandbox: Sandbox) -> None:
        """What a submission changes in its arguments is seen by the test, as it would be in one process."""
        tensor, numbers, table = torch.ones(3), [1, 2, 3], {"old": 0}
        call(sandbox, "change_in_place", tensor, numbers, table)
        assert tensor.tolist() == [0.0, 0.0, 0.0]
        assert numbers == [1, 2, 3, 4]
        assert table == {"old": 0, "new": 1}


def test_python_is_the_same(sandbox: Sandbox) -> None:
    """The sandbox runs the interpreter that runs the judge."""
    assert call(sandbox, "apply", lambda value: value, list(sys.version_info[:2])) == list(sys.version_info[:2])
