"""The `wcp360` command: a client of the API, built from its OpenAPI document, so every endpoint is a command.

Invariant: it knows no endpoint by name except sign-in and the job it waits for; it imports nothing of controller or
agent. Not here: any rule of the product; the server decides, the command line shows.
"""
