"""Side-by-side measurements against peers; each runs alone: `python -m benchmarks.bench_loop`."""
