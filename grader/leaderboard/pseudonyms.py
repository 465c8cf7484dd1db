"""Names that stand on the public board in place of students'."""

import hashlib
import hmac
import os
import secrets
from pathlib import Path

COLOURS = """
amber azure beige black blue bronze brown cobalt copper coral cream crimson cyan ebony emerald golden
green grey indigo ivory jade khaki lemon lilac lime magenta maroon mint mauve navy ochre olive
""".split()
BIRDS = """
albatross avocet bittern bunting buzzard chough condor cormorant crane curlew dipper dunlin eagle egret falcon finch
gannet godwit goshawk grebe heron hoopoe ibis jackdaw kestrel kite lapwing linnet magpie merlin oriole osprey
""".split()


def load_key(board: Path) -> bytes:
    """Return the staff's key of a board; the first call makes it, readable by its owner alone.

    Who has the key can tell which pseudonym a login has. With another key all pseudonyms change.
    """
    file = board / "pseudonyms.key"
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return file.read_bytes()
    with os.fdopen(descriptor, "wb") as out:
        out.write(secrets.token_bytes(32))
    return file.read_bytes()


def pseudonym(login: str, term: str, key: bytes) -> str:
    """Return a student's name on the boards of a term: a colour, a bird and four hexadecimal digits.

    It is an HMAC of term and login, so it stays the same through the term, differs in the next, and cannot be found
    from a list of logins without the key. Two of 300 students have the same one with a probability of 0.001.
    """
    number = int.from_bytes(hmac.digest(key, f"{term}\0{login}".encode(), hashlib.sha256)[:8])
    number, colour = divmod(number, len(COLOURS))
    number, bird = divmod(number, len(BIRDS))
    return f"{COLOURS[colour]} {BIRDS[bird]} {number & 0xFFFF:04x}"
