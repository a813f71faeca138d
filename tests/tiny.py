"""The shipped recipe at a size that runs in seconds: every stage and network kind, hardly any work."""

TINY = [
    "name=tiny", "data.limit=200", "compute.threads=1", "compute.device=cpu",
    "teacher.width=16", "teacher.blocks=2", "teacher.head_dim=8", "teacher.training.images=1024",
    "teacher.training.batch=64", "teacher.training.warmup=64", "teacher.training.ema=128", "teacher.preview_samples=4",
    "bank.draws_per_image=2", "bank.shard=100",
    "student.network.base=8", "student.network.multipliers=[1, 1]", "student.network.head_channels=8",
    "student.network.blocks=1", "student.training.images=1024", "student.training.batch=64",
    "student.training.warmup=64", "student.training.ema=128",
    "pairs.count=128", "pairs.nfe=2", "pairs.shard=64",
    "onestep.training.images=512", "onestep.training.batch=64", "onestep.training.warmup=64",
    "onestep.training.ema=128",
    "evaluation.samples=128",
    "evaluation.student=[{solver: euler, grid: uniform, nfe: [1, 2]}, {solver: heun, nfe: [3]}]",
    "evaluation.onestep=[{solver: euler, grid: uniform, nfe: [1]}]",
]
