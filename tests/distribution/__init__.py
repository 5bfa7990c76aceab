"""What users install: extras, types, the wheel and its demonstrations, and new projects."""
