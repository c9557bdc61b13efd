from common.training.settings import LayerSettings, setting


class Settings(LayerSettings):
    title = "S-OPT (GS)"
    row = 100

    iterations: int = 300_000
    eval_every: int = 750
    iterations_per_episode: int = setting(750, "iterations per episode", least=1)
    rotated_fraction: float = setting(
        0.25, "the share of the rows of F that is rotated at a time", above=0, most=1
    )
    reset_bn: bool = setting(
        True, "reset gamma and beta to 1 and 0 at each episode, as in the original"
    )
    orthogonalize: str = setting(
        "gram_schmidt",
        "the map; the original has Gram-Schmidt, but S-OPT works with any",
        choices=("gram_schmidt", "householder", "lowdin", "cayley"),
    )
