"""A home, a runtime directory and an environment of their own, for scripts that start gits and a watch."""
import os


def environment(root, **more):
    for name in ("home", "run"):
        os.mkdir(os.path.join(root, name), 0o700)
    keep = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    return keep | {
        "HOME": os.path.join(root, "home"), "XDG_RUNTIME_DIR": os.path.join(root, "run"), "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b",
    } | more
