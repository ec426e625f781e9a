"""The registrar: makes code locations live, and keeps runs and Kubernetes Jobs in step.

It runs once beside the webserver and the daemon, as the command ``forge-registrar``.
"""
