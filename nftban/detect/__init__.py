"""From a log line to an offence, and from offences to a suspect."""
