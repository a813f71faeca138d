"""Parts of a benchmark that go wrong."""
