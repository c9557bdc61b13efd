from common.training.settings import LayerSettings, setting


class Settings(LayerSettings):
    title = "OPT (OGD)"
    row = 80

    rotation_lr: float = setting(0.02, "the initial learning rate of the rotations", least=0)
    reorthogonalize_every: int = setting(
        0, "updates between two corrections of rotations; 0: never", least=0, most=2**31 - 1
    )
