"""What a stranger may give us, as fuzz targets: no exception but basekamp's own may come out of them.

targets.py          what is fuzzed
corpus/<target>/    where a fuzzer begins
crashes/<target>/   what was found and mended; tests/test_fuzz.py replays both
"""
