"""`list`: recipes, artifacts and their sizes."""


def test_list_has_recipes_and_artifacts_with_sizes(flowctl, finished):
    text = flowctl("list").stdout
    assert "nfm-digits" in text and f"teacher/tiny-{finished.nodes['teacher'].fingerprint[:12]}" in text
    assert "7 artifacts" in text
