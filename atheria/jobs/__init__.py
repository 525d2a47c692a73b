"""What the commands do, once their settings are checked: ``check(config)`` and ``run(config)``."""
