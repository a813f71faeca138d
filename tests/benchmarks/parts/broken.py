"""A part that fails after its first row."""


def measure(context):
    yield {"figure": 1.5, "kind": "before | the failure"}
    raise RuntimeError(f"no kernel for {context.device}")
