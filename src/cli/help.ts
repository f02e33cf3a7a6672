// `lb --help`: what the program can do, on one screen.

export const HELP = `lb - a layer-4 load balancer

Usage:
  lb FILE             run with the config FILE
  lb check FILE       say everything that is wrong with FILE, or that it is fine
  lb demo             run with three small built-in backends, to see it work
  lb schema           print the JSON Schema of the config, for editors
  lb health [WHERE]   ask a running lb whether it is alive; WHERE is its config file or its
                      admin address; without it /etc/lb/lb.toml, then ./lb.toml
  lb --version        print the version
  lb --help           print this

Signals:
  SIGHUP              reload the config; one that is wrong changes nothing
  SIGTERM, SIGINT     stop within shutdown_timeout; a second one ends at once
  SIGUSR1             reopen the log files

Exit codes:
  0  fine    1  failure while running    2  bad usage or config

The smallest config, five lines of TOML:
  [listeners.web]
  bind = ":8080"
  pool = "app"
  [pools.app]
  backends = ["127.0.0.1:3000", "127.0.0.1:3001"]`;
