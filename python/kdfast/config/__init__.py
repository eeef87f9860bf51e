"""The config of a run: its sections and one strict loader. No torch in here.

Examples:
    >>> from kdfast.config import TrainConfig, config_from_dict
    >>> TrainConfig(num_steps=0)
    Traceback (most recent call last):
    ...
    kdfast.errors.ConfigError: train.num_steps: must be an integer >= 1, got 0
"""

from kdfast.config.api import ApiConfig
from kdfast.config.arch import ArchConfig
from kdfast.config.config import SECTIONS, Config
from kdfast.config.data import DataConfig
from kdfast.config.export import ExportConfig
from kdfast.config.gates import GatesConfig
from kdfast.config.io import IOConfig
from kdfast.config.kd import KDConfig
from kdfast.config.loader import config_from_dict, load_config, load_section
from kdfast.config.optimizer import OptimizerConfig
from kdfast.config.price import PriceConfig
from kdfast.config.quant import QuantConfig
from kdfast.config.section import Section
from kdfast.config.speed import SpeedConfig
from kdfast.config.teacher import TeacherConfig
from kdfast.config.train import TrainConfig

__all__ = [
    "SECTIONS",
    "ApiConfig",
    "ArchConfig",
    "Config",
    "DataConfig",
    "ExportConfig",
    "GatesConfig",
    "IOConfig",
    "KDConfig",
    "OptimizerConfig",
    "PriceConfig",
    "QuantConfig",
    "Section",
    "SpeedConfig",
    "TeacherConfig",
    "TrainConfig",
    "config_from_dict",
    "load_config",
    "load_section",
]
