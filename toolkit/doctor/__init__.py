"""Find misconfigurations of services, their databases and their broker, each with its cure.

The probes gather the facts and change nothing; the checks look at the facts.
"""

from toolkit.doctor.checks.registry import CHECKS
from toolkit.doctor.examination import examine
from toolkit.doctor.findings import Finding, Severity
from toolkit.doctor.targets import Target

__all__ = ["CHECKS", "Finding", "Severity", "Target", "examine"]
