# services.cortex: the gateway.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib)
    literalExpression
    mkEnableOption
    mkIf
    mkOption
    mkPackageOption
    types
    ;
  cfg = config.services.cortex;
  addresses = import ./addresses.nix { inherit lib; };
  value = (pkgs.formats.toml { }).type;

  secretFile = import ./secret-file.nix { inherit lib; };
  credentials = import ./credentials.nix {
    inherit lib;
    unit = "cortex";
    files = {
      keys = cfg.keysFile;
      certificate = cfg.tls.certFile;
      certificate-key = cfg.tls.keyFile;
      certificates-of-nodes = cfg.tls.caFile;
    }
    // lib.mapAttrs' (name: neuron: lib.nameValuePair "neuron-${name}" neuron.tokenFile) cfg.neurons;
  };

  neuron = types.submodule {
    options = {
      endpoint = mkOption {
        type = types.strMatching "https?://[^/[:space:]]+/?";
        example = "http://192.168.1.20:13131";
        description = "Where the node is reached.";
      };
      tokenFile = secretFile {
        example = "/run/secrets/atlas-token";
        description = "File with the token that is sent to this node.";
      };
    };
  };

  configuration = import ./configuration.nix {
    inherit lib pkgs;
    inherit (cfg) package files;
    program = "cortex";
  };

  # What is reached from other machines.
  reached =
    lib.optional (!addresses.isLoopback cfg.address) "address = \"${cfg.address}\""
    ++ lib.optional (
      !addresses.isLoopback cfg.metrics.address
    ) "metrics.address = \"${cfg.metrics.address}\"";
  api = { inherit (cfg) address port; };
  metrics = { inherit (cfg.metrics) address port; };
  node = { inherit (config.services.neuron) address port; };
in
{
  options.services.cortex = {
    enable = mkEnableOption "cortex, one API in front of every GPU";
    package = mkPackageOption pkgs "cortex" { };

    address = mkOption {
      type = addresses.type;
      default = "127.0.0.1";
      example = "0.0.0.0";
      description = "Where clients reach the API; only this machine by default.";
    };
    port = mkOption {
      type = types.port;
      default = 31313;
      description = "Port of the API.";
    };
    metrics = {
      address = mkOption {
        type = addresses.type;
        default = "127.0.0.1";
        description = "Where Prometheus reads `/metrics`.";
      };
      port = mkOption {
        type = types.port;
        default = 31314;
        description = "Port of the metrics.";
      };
    };
    openFirewall = mkOption {
      type = types.bool;
      default = false;
      description = "Whether to open the port of the API in the firewall. That of the metrics stays shut.";
    };
    keysFile = secretFile {
      example = "/run/secrets/cortex-keys";
      description = "File of API keys, as `cortex keys create` makes it: only who has one may ask.";
    };
    insecure = mkOption {
      type = types.bool;
      default = false;
      description = ''
        Whether cortex may listen beyond this machine although it asks nobody for a key: whoever
        reaches it may use every model and unload it. Only for a network you trust.
      '';
    };
    tls = {
      certFile = secretFile {
        example = "/var/lib/acme/cortex.lan/fullchain.pem";
        description = "Certificate with its chain, in PEM: the API and the metrics are then HTTPS.";
      };
      keyFile = secretFile {
        example = "/var/lib/acme/cortex.lan/key.pem";
        description = "Key of that certificate.";
      };
      caFile = secretFile {
        example = "/run/secrets/nodes.pem";
        description = "Certificates that those of the nodes are checked by, instead of the system's.";
      };
    };

    neurons = mkOption {
      type = types.attrsOf neuron;
      default = { };
      example = literalExpression ''
        {
          atlas.endpoint = "http://192.168.1.20:13131";
          hermes = {
            endpoint = "http://192.168.1.21:13131";
            tokenFile = "/run/secrets/hermes-token";
          };
        }
      '';
      description = "The nodes, one for each machine that runs neuron.";
    };
    models = mkOption {
      type = types.attrsOf (types.submodule { freeformType = types.attrsOf value; });
      default = { };
      example = literalExpression ''
        {
          "qwen3-8b" = {
            source = "hf:Qwen/Qwen3-8B-GGUF";
            quant = "Q4_K_M";
            pinned_on = [ "atlas" ];
            options.context = 32768;
          };
        }
      '';
      description = ''
        The catalogue: what clients ask for, and the rest of a `[[models]]` entry of `models.toml`.
        What a node already has needs no entry.
      '';
    };
    aliases = mkOption {
      type = types.attrsOf types.str;
      default = { };
      example = {
        "claude-*" = "qwen3-8b";
      };
      description = "Other names for models: programs ask for the names they know.";
    };
    settings = mkOption {
      default = { };
      example = literalExpression ''
        {
          eviction.strategy = "cost";
          timeouts.hold = 120;
        }
      '';
      description = ''
        The rest of `cortex.toml`. A key that cortex does not know fails the build of the system.
      '';
      type = types.submodule {
        freeformType = types.attrsOf value;
        options.timeouts = mkOption {
          default = { };
          description = "`[timeouts]`, in seconds.";
          type = types.submodule {
            freeformType = types.attrsOf value;
            options.drain = mkOption {
              type = types.numbers.positive;
              default = 30;
              description = "On a stop, the longest wait for the answers under way. systemd waits a little longer.";
            };
          };
        };
      };
    };
    files = mkOption {
      type = types.attrsOf types.anything;
      default = { };
      internal = true;
      description = "What the program reads, before it is written as TOML.";
    };
  };

  config = mkIf cfg.enable {
    assertions = [
      {
        assertion = cfg.neurons != { };
        message = "services.cortex.neurons is empty: cortex needs at least one node, for example services.cortex.neurons.here.endpoint = \"http://127.0.0.1:13131\".";
      }
      {
        assertion = reached == [ ] || cfg.keysFile != null || cfg.insecure;
        message = "services.cortex.${lib.head reached} is reached from other machines, and cortex asks nobody for a key: set services.cortex.keysFile, or, in a network you trust, services.cortex.insecure = true.";
      }
      {
        assertion = (cfg.tls.certFile == null) == (cfg.tls.keyFile == null);
        message = "services.cortex.tls.certFile and services.cortex.tls.keyFile go together: set both, or none.";
      }
      {
        assertion = cfg.openFirewall -> !addresses.isLoopback cfg.address;
        message = "services.cortex.openFirewall opens port ${toString cfg.port}, but cortex listens on ${cfg.address} only: set services.cortex.address.";
      }
      {
        assertion = !addresses.clash api metrics;
        message = "services.cortex.port and services.cortex.metrics.port are both ${toString cfg.port}: give the metrics another one.";
      }
      {
        assertion =
          (config.services.neuron.enable or false)
          -> !(addresses.clash api node || addresses.clash metrics node);
        message = "services.neuron.port = ${toString node.port} is taken by services.cortex on the same machine: give one of them another port.";
      }
    ];

    services.cortex.settings = {
      gateway.listen = addresses.joined cfg.address cfg.port;
      gateway.metrics_listen = addresses.joined cfg.metrics.address cfg.metrics.port;
      models_config = "models.toml";
      neurons = lib.mapAttrsToList (
        name: neuron:
        {
          inherit name;
          inherit (neuron) endpoint;
        }
        // credentials.setting "token_file" "neuron-${name}"
      ) cfg.neurons;
      access = {
        inherit (cfg) insecure;
      }
      // credentials.setting "keys_file" "keys";
      tls =
        credentials.setting "cert_file" "certificate"
        // credentials.setting "key_file" "certificate-key"
        // credentials.setting "ca_file" "certificates-of-nodes";
    };
    services.cortex.files = {
      "cortex.toml" = cfg.settings;
      "models.toml" = {
        models = lib.mapAttrsToList (id: model: { inherit id; } // model) cfg.models;
        inherit (cfg) aliases;
      };
    };

    # A fixed place: what changes in the files is then a reload, and no answer is cut off for it.
    environment.etc = {
      "cortex/cortex.toml".source = "${configuration}/cortex.toml";
      "cortex/models.toml".source = "${configuration}/models.toml";
    };
    environment.systemPackages = [ cfg.package ];
    networking.firewall.allowedTCPPorts = mkIf cfg.openFirewall [ cfg.port ];

    systemd.services.cortex = {
      description = "One API in front of every GPU";
      wantedBy = [ "multi-user.target" ];
      wants = [ "network-online.target" ];
      # Stopped before a neuron on the same machine, so that answers under way can end.
      after = [
        "network-online.target"
        "neuron.service"
      ];
      reloadTriggers = [ configuration ];
      # Where it listens cannot change while it runs.
      restartTriggers = [ (builtins.toJSON cfg.settings.gateway) ];

      serviceConfig = import ./hardening.nix { } // {
        Type = "exec";
        ExecStart = "${cfg.package}/bin/cortex serve -c /etc/cortex/cortex.toml";
        ExecReload = "${pkgs.coreutils}/bin/kill -HUP $MAINPID";
        Restart = "on-failure";
        RestartSec = 2;
        # Its exit status for a configuration that cannot be used: trying again would not help.
        RestartPreventExitStatus = 2;
        KillMode = "mixed";
        TimeoutStopSec = builtins.ceil (cfg.settings.timeouts.drain + 10);
        LimitNOFILE = 65536;
        StateDirectory = "cortex";
        WorkingDirectory = "%S/cortex";
        LoadCredential = credentials.load;
      };
    };
  };
}
