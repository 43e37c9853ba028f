"""x"""
from .forecaster import Forecaster
