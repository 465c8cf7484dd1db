"""The language of a text, always the same for the same text."""

import functools
import threading

from langdetect import PROFILES_DIRECTORY, LangDetectException  # type: ignore[import-untyped]
from langdetect.detector_factory import DetectorFactory  # type: ignore[import-untyped]

_SEED = 0
_lock = threading.Lock()


@functools.cache
def _factory() -> DetectorFactory:
    """Return a factory of our own: langdetect's has a seed that is global and, unless set, no seed at all."""
    factory = DetectorFactory()
    factory.seed = _SEED
    factory.load_profile(PROFILES_DIRECTORY)
    return factory


def languages() -> frozenset[str]:
    """Return the codes that can be detected: ISO 639-1, Chinese as zh, zh-cn and zh-tw."""
    with _lock:
        return frozenset(_factory().get_lang_list()) | {"zh"}


def detect_language(text: str) -> str | None:
    """Return the code of a text's language, or None where it cannot be detected, as in one of digits alone.

    Paper: Shuyo, 2010, "Language detection library for Java", in its Python port langdetect.
    """
    with _lock:
        detector = _factory().create()
    detector.append(text)
    try:
        code: str = detector.detect()
    except LangDetectException:
        return None
    return None if code == detector.UNKNOWN_LANG else code
