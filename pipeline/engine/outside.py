"""Files outside the store that a stage will read: looked into before the stages that come before it take their time."""

from __future__ import annotations

from pipeline.recipe.sections import Config, Loss, Reference


def check_files(config: Config) -> None:
    """Read the weights that the recipe names for a stage with these settings: of LPIPS, of Inception.

    Raises DataError for a file that is not there, is damaged, or holds something else.
    """
    loss: Loss | None = getattr(config, "loss", None)
    if loss is not None and loss.files:
        from pipeline.flow_matching.losses import loss_of_config

        loss_of_config(loss)
    if isinstance(config, Reference) and config.weights is not None:
        from pipeline.metrics import load_inception

        load_inception(config.weights, config.checksum)
