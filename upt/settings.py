from common.training.settings import LayerSettings, setting


class Settings(LayerSettings):
    title = "UPT"
    row = 20

    rotation_start: str = setting(
        "identity", "the initial R: I, or drawn from N(0, 1)", choices=("identity", "normal")
    )
