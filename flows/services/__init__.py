"""What `zspl up` starts on this machine: a Prefect server, its worker, and an MLflow server.

`processes` starts, finds and ends processes, `stack` says which ones there are and when they
are up, `api` sets the server up; `__main__` is the command.
"""
