"""The private keys, and who may read them: this process by default, else `wcpd signer` behind a unix socket.

What is signed is read before it is signed. Who asks for a signature, and why, is not here.
"""
