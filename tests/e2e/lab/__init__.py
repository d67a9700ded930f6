"""A mail and SSH server under attack, made of real programs in network namespaces, for the end-to-end tests.

`namespaces` joins a server and a client by a cable; `postfix`, `dovecot`, `sshd`, `syslog` and `dns` (rbldnsd, unbound)
start the real servers in the server's namespace; `faults` is a resolver that goes wrong on demand; `clients` holds what
well and badly behaved clients do, from any source address; `logfile` waits for lines as they are written.
Needs root and the Debian packages dovecot-imapd, iproute2, libsasl2-modules, libsasl2-modules-db, nftables,
openssh-client, openssh-server, openssl, postfix, rbldnsd, rsyslog, sasl2-bin, unbound, util-linux.  None of their
services has to run.
"""
