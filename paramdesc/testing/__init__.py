"""Checks for parametrizations that you write."""

from paramdesc.testing.check import check_parametrization
from paramdesc.testing.report import CheckError, Outcome, Report

__all__ = ["CheckError", "Outcome", "Report", "check_parametrization"]
