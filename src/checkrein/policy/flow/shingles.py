"""Several words in a row: what tells that a passage of prose has come from somewhere."""

SHINGLE_WORDS = 4


def shingles(words: list[str]) -> set[int]:
    """Of each four words in a row the hash: equal passages have equal ones within a process. O(n),
    about 80 ns a word."""
    return set(map(hash, zip(words, words[1:], words[2:], words[3:], strict=False)))
