"""Files outside the store that stages will read: looked into before the stages before them take their time."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.recipe.sections import Config, Loss, Reference


def check_files(configs: Sequence[Config]) -> None:
    """Read the weights that recipes name for stages with these settings, of Inception and of LPIPS; each once.

    Raises DataError for a file that is not there, is damaged, or holds something else.
    """
    references = [config for config in configs if isinstance(config, Reference) and config.weights is not None]
    for weights, checksum in {(config.weights, config.checksum) for config in references}:
        from pipeline.metrics import load_inception

        load_inception(weights, checksum)
    losses: list[Loss | None] = [getattr(config, "loss", None) for config in configs]
    for loss in {loss for loss in losses if loss is not None and loss.files}:
        from pipeline.flow_matching.losses import loss_of_config

        loss_of_config(loss)
