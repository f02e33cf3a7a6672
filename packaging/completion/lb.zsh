#compdef lb
# zsh completion for lb
_lb_backends() {
  local -a names
  names=(${(f)"$(lb completion backends 2>/dev/null)"})
  compadd -a names
}
_lb() {
  local -a commands
  commands=(
    'check:report every problem of a config, or that it is fine'
    'demo:run with three small built-in backends, to see it work'
    'schema:print the JSON Schema of the config, for editors'
    'health:ask a running lb whether it is alive or ready; exit code 0 if so, else 1'
    'version:print the version'
    'completion:print a completion script for a shell'
    'man:print the manual page lb(1)'
    'help:print help'
    'status:show listeners, pools, backends and workers'
    'top:the same live on the whole terminal\: sort, filter, drain, kill'
    'reload:load the config file again, and print the changes or the problems'
    'drain:send no new connections to a backend'
    'ready:use a backend again that was drained or in maintenance'
    'maintenance:drain a backend and stop its health checks'
    'weight:change a backend'\''s weight until the file has another one'
    'connections:list the live connections, or end some'
    'clients:list the clients with the most connections or refusals'
    'explain:say which limits, route, pool and backend a client would get'
    'config:print the effective config, with every option that the file leaves out'
    'logs:print access lines as connections end, until interrupted'
  )
  if ((CURRENT == 2)); then
    _describe command commands
    _files -g '*.toml'
    _arguments '-v[print the version]' '--version[print the version]' '-h[print help, also of a command]' '--help[print help, also of a command]'
    return
  fi
  local command=$words[2]
  shift words
  ((CURRENT--))
  case $command in
    check) _arguments '--deep[also whether addresses can be bound, logs written, names resolve, and backends answer]' '-h[print help]' '--help[print help]' '1:file:_files' ;;
    demo) _arguments '-h[print help]' '--help[print help]' ;;
    schema) _arguments '-h[print help]' '--help[print help]' ;;
    health) _arguments '--ready[ask whether it accepts connections, or whether LISTENER has a backend that is up]:value:' '--admin[the admin endpoint, instead of FILE or URL]:value:' '--config[the config that names it, instead of FILE or URL]:file:_files' '--token-file[file with the bearer token, for a URL with another path than /live and /ready]:file:_files' '--ca[certificates to trust for HTTPS; default\: the config'\''s own certificate, or the system'\''s]:file:_files' '-h[print help]' '--help[print help]' '1:file:_files' ;;
    version) _arguments '-h[print help]' '--help[print help]' ;;
    completion) _arguments '-h[print help]' '--help[print help]' '1:shell:(bash zsh fish)' ;;
    man) _arguments '-h[print help]' '--help[print help]' ;;
    help) _arguments '-h[print help]' '--help[print help]' '1:value:' ;;
    status) _arguments '--admin[the admin endpoint, such as 127.0.0.1\:9900, https\://lb.example\:9900 or unix\:/run/lb/admin.sock]:value:' '--config[the config that names it; default\: ./lb.toml, then /etc/lb/lb.toml]:file:_files' '--token-file[file with the bearer token; default\: $LB_ADMIN_TOKEN, then the config'\''s]:file:_files' '--ca[certificates to trust for HTTPS; default\: the config'\''s own certificate, or the system'\''s]:file:_files' '--json[print the snapshot of GET /api/status]' '--watch[again each second, until interrupted]' '--diff[only run-time changes that differ from the file]' '-h[print help]' '--help[print help]' ;;
    top) _arguments '--admin[the admin endpoint, such as 127.0.0.1\:9900, https\://lb.example\:9900 or unix\:/run/lb/admin.sock]:value:' '--config[the config that names it; default\: ./lb.toml, then /etc/lb/lb.toml]:file:_files' '--token-file[file with the bearer token; default\: $LB_ADMIN_TOKEN, then the config'\''s]:file:_files' '--ca[certificates to trust for HTTPS; default\: the config'\''s own certificate, or the system'\''s]:file:_files' '-h[print help]' '--help[print help]' ;;
    reload) _arguments '--admin[the admin endpoint, such as 127.0.0.1\:9900, https\://lb.example\:9900 or unix\:/run/lb/admin.sock]:value:' '--config[the config that names it; default\: ./lb.toml, then /etc/lb/lb.toml]:file:_files' '--token-file[file with the bearer token; default\: $LB_ADMIN_TOKEN, then the config'\''s]:file:_files' '--ca[certificates to trust for HTTPS; default\: the config'\''s own certificate, or the system'\''s]:file:_files' '-h[print help]' '--help[print help]' ;;
    drain) _arguments '--admin[the admin endpoint, such as 127.0.0.1\:9900, https\://lb.example\:9900 or unix\:/run/lb/admin.sock]:value:' '--config[the config that names it; default\: ./lb.toml, then /etc/lb/lb.toml]:file:_files' '--token-file[file with the bearer token; default\: $LB_ADMIN_TOKEN, then the config'\''s]:file:_files' '--ca[certificates to trust for HTTPS; default\: the config'\''s own certificate, or the system'\''s]:file:_files' '--timeout[end connections that are open after this time, such as 30s; default\: never]:value:' '-h[print help]' '--help[print help]' '1:backend:_lb_backends' ;;
    ready) _arguments '--admin[the admin endpoint, such as 127.0.0.1\:9900, https\://lb.example\:9900 or unix\:/run/lb/admin.sock]:value:' '--config[the config that names it; default\: ./lb.toml, then /etc/lb/lb.toml]:file:_files' '--token-file[file with the bearer token; default\: $LB_ADMIN_TOKEN, then the config'\''s]:file:_files' '--ca[certificates to trust for HTTPS; default\: the config'\''s own certificate, or the system'\''s]:file:_files' '-h[print help]' '--help[print help]' '1:backend:_lb_backends' ;;
    maintenance) _arguments '--admin[the admin endpoint, such as 127.0.0.1\:9900, https\://lb.example\:9900 or unix\:/run/lb/admin.sock]:value:' '--config[the config that names it; default\: ./lb.toml, then /etc/lb/lb.toml]:file:_files' '--token-file[file with the bearer token; default\: $LB_ADMIN_TOKEN, then the config'\''s]:file:_files' '--ca[certificates to trust for HTTPS; default\: the config'\''s own certificate, or the system'\''s]:file:_files' '--timeout[end connections that are open after this time, such as 30s; default\: never]:value:' '-h[print help]' '--help[print help]' '1:backend:_lb_backends' ;;
    weight) _arguments '--admin[the admin endpoint, such as 127.0.0.1\:9900, https\://lb.example\:9900 or unix\:/run/lb/admin.sock]:value:' '--config[the config that names it; default\: ./lb.toml, then /etc/lb/lb.toml]:file:_files' '--token-file[file with the bearer token; default\: $LB_ADMIN_TOKEN, then the config'\''s]:file:_files' '--ca[certificates to trust for HTTPS; default\: the config'\''s own certificate, or the system'\''s]:file:_files' '-h[print help]' '--help[print help]' '1:backend:_lb_backends' ;;
    connections) _arguments '--admin[the admin endpoint, such as 127.0.0.1\:9900, https\://lb.example\:9900 or unix\:/run/lb/admin.sock]:value:' '--config[the config that names it; default\: ./lb.toml, then /etc/lb/lb.toml]:file:_files' '--token-file[file with the bearer token; default\: $LB_ADMIN_TOKEN, then the config'\''s]:file:_files' '--ca[certificates to trust for HTTPS; default\: the config'\''s own certificate, or the system'\''s]:file:_files' '--client[only of this client, or of this CIDR]:value:' '--listener[only of this listener]:value:' '--pool[only of this pool]:value:' '--backend[only at this backend]:value:' '--sort[by this key of the JSON, such as age_ms or -age_ms]:value:' '--limit[maximum number of rows]:value:' '--json[print the answer of GET /api/connections]' '--kill[end them with a reset; needs a filter]' '--yes[do not ask before --kill]' '-h[print help]' '--help[print help]' ;;
    clients) _arguments '--admin[the admin endpoint, such as 127.0.0.1\:9900, https\://lb.example\:9900 or unix\:/run/lb/admin.sock]:value:' '--config[the config that names it; default\: ./lb.toml, then /etc/lb/lb.toml]:file:_files' '--token-file[file with the bearer token; default\: $LB_ADMIN_TOKEN, then the config'\''s]:file:_files' '--ca[certificates to trust for HTTPS; default\: the config'\''s own certificate, or the system'\''s]:file:_files' '--sort[by this key of the JSON, such as open or refusals]:value:' '--limit[maximum number of rows]:value:' '--json[print the answer of GET /api/clients]' '-h[print help]' '--help[print help]' ;;
    explain) _arguments '--admin[the admin endpoint, such as 127.0.0.1\:9900, https\://lb.example\:9900 or unix\:/run/lb/admin.sock]:value:' '--config[the config that names it; default\: ./lb.toml, then /etc/lb/lb.toml]:file:_files' '--token-file[file with the bearer token; default\: $LB_ADMIN_TOKEN, then the config'\''s]:file:_files' '--ca[certificates to trust for HTTPS; default\: the config'\''s own certificate, or the system'\''s]:file:_files' '--listener[the listener that it connects to]:value:' '--client[its address, such as 192.0.2.1]:value:' '--sni[the server name that it asks for]:value:' '--alpn[the protocols that it offers, such as h2 http/1.1]:value:' '--json[print the answer of POST /api/explain]' '-h[print help]' '--help[print help]' ;;
    config) _arguments '--admin[the admin endpoint, such as 127.0.0.1\:9900, https\://lb.example\:9900 or unix\:/run/lb/admin.sock]:value:' '--config[the config that names it; default\: ./lb.toml, then /etc/lb/lb.toml]:file:_files' '--token-file[file with the bearer token; default\: $LB_ADMIN_TOKEN, then the config'\''s]:file:_files' '--ca[certificates to trust for HTTPS; default\: the config'\''s own certificate, or the system'\''s]:file:_files' '--json[as JSON]' '-h[print help]' '--help[print help]' ;;
    logs) _arguments '--admin[the admin endpoint, such as 127.0.0.1\:9900, https\://lb.example\:9900 or unix\:/run/lb/admin.sock]:value:' '--config[the config that names it; default\: ./lb.toml, then /etc/lb/lb.toml]:file:_files' '--token-file[file with the bearer token; default\: $LB_ADMIN_TOKEN, then the config'\''s]:file:_files' '--ca[certificates to trust for HTTPS; default\: the config'\''s own certificate, or the system'\''s]:file:_files' '-f[follow the log (the default)]' '--follow[follow the log (the default)]' '--client[only of this client, or of this CIDR]:value:' '--listener[only of this listener]:value:' '--pool[only of this pool]:value:' '--backend[only of this backend]:value:' '--end[only with this end, such as connect_refused]:value:' '--min-duration[only of connections that lived so long, such as 10s]:value:' '--json[as JSON]' '-h[print help]' '--help[print help]' ;;
  esac
}
compdef _lb lb
