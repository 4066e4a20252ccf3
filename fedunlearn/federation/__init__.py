"""Who asks whom: procedures, the driver that runs many of them, engines, and what watches their rounds."""
