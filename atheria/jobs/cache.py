"""The work of ``python -m atheria.cache``."""

from datetime import datetime
from pathlib import Path

from atheria import law_cache
from atheria.config import CacheConfig
from atheria.files import cache_folder


def check(config: CacheConfig) -> None:
    """Nothing here contradicts itself."""


def run(config: CacheConfig) -> list[Path]:
    """Lists the laws in the cache, or prunes it; returns those that were removed."""
    removed = law_cache.prune(config.keep) if config.prune else []
    for path in removed:
        print(f"removed   {path.parent.parent.name}")
    laws = law_cache.contents()
    for path in laws:
        used = datetime.fromtimestamp(law_cache.used(path)).isoformat(" ", "minutes")
        print(f"law       {path.parent.parent.name}  {path.stat().st_size / 1e6:8.1f} MB  used {used}")
    size = sum(path.stat().st_size for path in laws) / 1e6
    print(f"{len(laws)} laws, {size:.1f} MB of {law_cache.most_bytes() / 1e6:.0f} MB, in {cache_folder()}")
    return removed
