"""The YAML files that Hydra composes, installed as the package ``atheria.conf``."""
