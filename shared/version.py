"""The version of the whole product: controller, agent and CLI are released together."""

__version__ = "0.1.0"
