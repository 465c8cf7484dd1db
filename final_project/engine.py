"""The engine: yours to write.

Begin with one sequence at a time, then see what the handout says about batches, caches and schedules. What you wrote in
homework 3 has its place here: copy the modules that you want to use into this folder.
"""

from final_project.interface import Output, Request, Stats


class Engine:
    """Generates the sequences that it is given with a language model.

    Tokens are drawn as `SamplingParams` says (`shared_tasks.models.next_token.choose` does it for a batch). What a
    sequence becomes depends on its request alone, never on what runs beside it; with a `seed` it is always the same.
    """

    def __init__(self, model: str, max_batch_size: int = 64):
        """Load a course model or a folder, and run at most `max_batch_size` sequences at a time.

        serve.toml's `options` come as keyword arguments: add what you need. Raises ValueError when there is no such
        model.
        """
        raise NotImplementedError

    def add(self, request: Request) -> None:
        """Take a sequence in; it begins in one of the next steps."""
        raise NotImplementedError

    def abort(self, request_id: int) -> None:
        """Forget a sequence and free what it holds at once. One that has ended, or never was, is no error."""
        raise NotImplementedError

    def step(self) -> list[Output]:
        """Do one round of work and return what it has generated: an output for each sequence that has a new token."""
        raise NotImplementedError

    def stats(self) -> Stats:
        """Return what there is to do now. When nothing waits or runs, no step is called until a request comes."""
        raise NotImplementedError
