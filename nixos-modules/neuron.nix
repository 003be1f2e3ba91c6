# services.neuron: the daemon of a machine that runs models.
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
  cfg = config.services.neuron;
  addresses = import ./addresses.nix { inherit lib; };
  gpus = import ./gpus.nix { inherit lib; };
  value = (pkgs.formats.toml { }).type;

  defaultCache = "/var/cache/neuron";
  cuda = cfg.package.cudaSupport or false;
  secretFile = import ./secret-file.nix { inherit lib; };
  credentials = import ./credentials.nix {
    inherit lib;
    unit = "neuron";
    files = {
      token = cfg.tokenFile;
      certificate = cfg.tls.certFile;
      certificate-key = cfg.tls.keyFile;
      hugging-face = cfg.huggingFaceTokenFile;
    };
  };
  ownCache = cfg.cacheDir == defaultCache;

  configuration = import ./configuration.nix {
    inherit lib pkgs;
    inherit (cfg) package files;
    program = "neuron";
  };
in
{
  options.services.neuron = {
    enable = mkEnableOption "neuron, the daemon that runs models on this machine";
    package = mkPackageOption pkgs "neuron" {
      extraDescription = "`neuron-cuda` of the flake runs models on NVIDIA GPUs, `neuron` on the CPU.";
    };

    address = mkOption {
      type = addresses.type;
      default = "127.0.0.1";
      example = "192.168.1.20";
      description = "Where cortex reaches this node; only from this machine by default.";
    };
    port = mkOption {
      type = types.port;
      default = 13131;
      description = "Port of the node.";
    };
    openFirewall = mkOption {
      type = types.bool;
      default = false;
      description = "Whether to open the port in the firewall.";
    };
    tokenFile = secretFile {
      example = "/run/secrets/neuron-token";
      description = "File of tokens, one a line: only who sends one of them is obeyed.";
    };
    tls = {
      certFile = secretFile {
        example = "/var/lib/acme/atlas.lan/fullchain.pem";
        description = "Certificate with its chain, in PEM: the node is then reached by HTTPS.";
      };
      keyFile = secretFile {
        example = "/var/lib/acme/atlas.lan/key.pem";
        description = "Key of that certificate.";
      };
    };
    insecure = mkOption {
      type = types.bool;
      default = false;
      description = ''
        Whether neuron may listen beyond this machine without a token, and so obey whoever reaches it.
        Only for a network you trust.
      '';
    };

    modelDirs = mkOption {
      type = types.listOf types.path;
      default = [ ];
      example = [ "/srv/models" ];
      description = "Folders whose model files this node offers. They are read by a user of the service's own, so everybody must be allowed to; homes are hidden from it.";
    };
    cacheDir = mkOption {
      type = types.path;
      default = defaultCache;
      example = "/srv/cache/neuron";
      description = ''
        Where fetched models are kept. Another folder than the default one is made, and belongs to a
        user `neuron` that is made with it.
      '';
    };
    huggingFaceTokenFile = secretFile {
      example = "/run/secrets/hugging-face";
      description = "File with a token for gated models.";
    };
    gpus = mkOption {
      type = gpus.type;
      default = if cuda then "all" else "none";
      defaultText = literalExpression ''if package.cudaSupport then "all" else "none"'';
      example = [
        0
        2
      ];
      description = ''
        The NVIDIA GPUs this service may open: `"all"`, `"none"`, or their numbers in `/dev/nvidiaN`.
        What it may not open it neither sees nor offers.
      '';
    };
    defaultModels = mkOption {
      type = types.attrsOf (types.submodule { freeformType = types.attrsOf value; });
      default = { };
      example = literalExpression ''
        { "qwen3-8b".source = "/srv/models/Qwen3-8B-Q4_K_M.gguf"; }
      '';
      description = "Models to load at start, by id, with the rest of a load request.";
    };
    settings = mkOption {
      default = { };
      example = literalExpression ''
        {
          harness.llamacpp.context = 32768;
          admission.max_queue_depth = 16;
        }
      '';
      description = ''
        The rest of `neuron.toml`. A key that neuron does not know fails the build of the system.
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
            options.unload = mkOption {
              type = types.numbers.positive;
              default = 20;
              description = "The longest wait for one engine to end.";
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
        assertion = addresses.isLoopback cfg.address || cfg.tokenFile != null || cfg.insecure;
        message = "services.neuron.address = \"${cfg.address}\" is reached from other machines, and neuron obeys whoever reaches it: set services.neuron.tokenFile, or, in a network you trust, services.neuron.insecure = true.";
      }
      {
        assertion = (cfg.tls.certFile == null) == (cfg.tls.keyFile == null);
        message = "services.neuron.tls.certFile and services.neuron.tls.keyFile go together: set both, or none.";
      }
      {
        assertion = cfg.openFirewall -> !addresses.isLoopback cfg.address;
        message = "services.neuron.openFirewall opens port ${toString cfg.port}, but neuron listens on ${cfg.address} only: set services.neuron.address.";
      }
      {
        assertion = cuda -> config.hardware.nvidia.enabled;
        message = "services.neuron.package is built for CUDA, and this machine has no NVIDIA driver: set services.xserver.videoDrivers = [ \"nvidia\" ], or use the package neuron, which runs on the CPU.";
      }
      {
        assertion = cuda -> cfg.gpus != "none" && cfg.gpus != [ ];
        message = "services.neuron.package is built for CUDA, and services.neuron.gpus lets it see no GPU: name some, or use the package neuron, which runs on the CPU.";
      }
      {
        assertion =
          !lib.any (folder: lib.hasPrefix "/home/" folder || lib.hasPrefix "/root/" folder) (
            map toString ([ cfg.cacheDir ] ++ cfg.modelDirs)
          );
        message = "services.neuron.modelDirs and cacheDir must not lie in /home or /root, which are hidden from the service: move the models, for example to /srv/models.";
      }
    ];

    services.neuron.settings = {
      host = cfg.address;
      inherit (cfg) insecure port;
      model_dirs = map toString cfg.modelDirs;
      cache_dir = toString cfg.cacheDir;
      default_models = lib.mapAttrsToList (id: model: { model_id = id; } // model) cfg.defaultModels;
      tls =
        credentials.setting "cert_file" "certificate" // credentials.setting "key_file" "certificate-key";
    }
    // credentials.setting "token_file" "token";
    services.neuron.files."neuron.toml" = cfg.settings;

    environment.etc."cortex/neuron.toml".source = "${configuration}/neuron.toml";
    environment.systemPackages = [ cfg.package ];
    networking.firewall.allowedTCPPorts = mkIf cfg.openFirewall [ cfg.port ];

    # A dynamic user owns its own directories only.
    users = mkIf (!ownCache) {
      users.neuron = {
        isSystemUser = true;
        group = "neuron";
      };
      groups.neuron = { };
    };
    systemd.tmpfiles.rules = mkIf (!ownCache) [ "d ${cfg.cacheDir} 0750 neuron neuron -" ];

    systemd.services.neuron = {
      description = "The models of this machine";
      wantedBy = [ "multi-user.target" ];
      wants = [ "network-online.target" ];
      after = [ "network-online.target" ];
      # A node reads little of its configuration again while it runs: it starts anew.
      restartTriggers = [ configuration ];
      environment = {
        HF_HOME = "${cfg.cacheDir}/huggingface";
        XDG_CACHE_HOME = toString cfg.cacheDir;
      }
      // lib.optionalAttrs (cfg.huggingFaceTokenFile != null) {
        HF_TOKEN_PATH = "%d/hugging-face";
      }
      // lib.optionalAttrs (cfg.gpus != "none") {
        # Where NixOS keeps the libraries of the driver.
        LD_LIBRARY_PATH = "/run/opengl-driver/lib";
      };

      serviceConfig =
        import ./hardening.nix {
          devices = gpus.devices cfg.gpus;
          compiles = true;
        }
        // {
          Type = "exec";
          ExecStart = "${cfg.package}/bin/neuron serve -c /etc/cortex/neuron.toml";
          ExecReload = "${pkgs.coreutils}/bin/kill -HUP $MAINPID";
          Restart = "on-failure";
          RestartSec = 2;
          # Its exit status for a configuration that cannot be used: trying again would not help.
          RestartPreventExitStatus = 2;
          # The daemon alone is asked to stop: engines go on until their answers have ended.
          KillMode = "mixed";
          # An engine that runs out of memory costs one model, not the node.
          OOMPolicy = "continue";
          TimeoutStopSec = builtins.ceil (cfg.settings.timeouts.drain + cfg.settings.timeouts.unload + 10);
          LimitNOFILE = 65536;
          StateDirectory = "neuron";
          WorkingDirectory = "%S/neuron";
          LoadCredential = credentials.load;
        }
        // (
          if ownCache then
            { CacheDirectory = "neuron"; }
          else
            {
              User = "neuron";
              ReadWritePaths = [ (toString cfg.cacheDir) ];
            }
        );
    };
  };
}
