# What the modules make of a configuration. `failing`: how the sentences of the failed assertions
# begin; `refused`: Nix itself does not take it, because of its type or its name.
let
  gateway = {
    services.cortex = {
      enable = true;
      neurons.atlas.endpoint = "http://192.168.1.20:13131";
    };
  };
  node.services.neuron.enable = true;

  cortex = more: {
    imports = [
      gateway
      { services.cortex = more; }
    ];
  };
  neuron = more: {
    imports = [
      node
      { services.neuron = more; }
    ];
  };
  well = module: {
    inherit module;
    failing = [ ];
  };
  fails = start: module: {
    inherit module;
    failing = [ start ];
  };
  refused = module: {
    inherit module;
    refused = true;
  };
in
{
  nothing-enabled = well { };
  smallest-gateway = well gateway;
  smallest-node = well node;
  one-machine = well {
    imports = [
      gateway
      node
    ];
  };
  everything-said = well {
    imports = [
      (cortex {
        address = "::";
        port = 8080;
        metrics.address = "10.0.0.1";
        openFirewall = true;
        keysFile = "/run/secrets/keys";
        tls = {
          certFile = "/var/lib/acme/cortex/fullchain.pem";
          keyFile = "/var/lib/acme/cortex/key.pem";
          caFile = "/var/lib/acme/nodes.pem";
        };
        neurons.hermes = {
          endpoint = "https://hermes.lan/";
          tokenFile = "/run/secrets/hermes";
        };
        models.qwen = {
          source = "hf:Qwen/Qwen3-8B-GGUF";
          pinned_on = [ "atlas" ];
          keep_alive_secs = 60.5;
          limit.context = 4096;
          options.parallel = 2;
        };
        aliases."claude-*" = "qwen";
        settings = {
          eviction.strategy = "cost";
          timeouts.drain = 90.5;
          timeouts.hold = 5;
        };
      })
      (neuron {
        address = "0.0.0.0";
        port = 9000;
        openFirewall = true;
        tokenFile = "/run/secrets/token";
        tls = {
          certFile = "/var/lib/acme/atlas/fullchain.pem";
          keyFile = "/var/lib/acme/atlas/key.pem";
        };
        modelDirs = [ "/srv/models" ];
        cacheDir = "/srv/cache";
        huggingFaceTokenFile = "/run/secrets/hf";
        gpus = [
          0
          2
        ];
        defaultModels.qwen.source = "/srv/models/qwen.gguf";
        settings = {
          harness.llamacpp.threads = 4;
          timeouts.unload = 5;
        };
      })
    ];
  };

  no-neurons = fails "services.cortex.neurons is empty" { services.cortex.enable = true; };
  public-gateway = fails "services.cortex.address = \"0.0.0.0\" is reached" (cortex {
    address = "0.0.0.0";
  });
  public-gateway-v6 = fails "services.cortex.address = \"fd00::1\" is reached" (cortex {
    address = "fd00::1";
  });
  public-metrics = fails "services.cortex.metrics.address = \"10.0.0.1\" is reached" (cortex {
    metrics.address = "10.0.0.1";
  });
  gateway-with-keys = well (cortex {
    address = "0.0.0.0";
    keysFile = "/run/secrets/keys";
  });
  gateway-with-half-a-certificate = fails "services.cortex.tls.certFile and" (cortex {
    tls.certFile = "/var/lib/acme/cortex/fullchain.pem";
  });
  node-with-a-token = well (neuron {
    address = "0.0.0.0";
    tokenFile = "/run/secrets/token";
  });
  node-with-half-a-certificate = fails "services.neuron.tls.certFile and" (neuron {
    tls.keyFile = "/var/lib/acme/atlas/key.pem";
  });
  trusted-gateway = well (cortex {
    address = "0.0.0.0";
    insecure = true;
  });
  gateway-firewall-for-nothing = fails "services.cortex.openFirewall opens port 31313" (cortex {
    openFirewall = true;
  });
  metrics-on-the-same-port = fails "services.cortex.port and services.cortex.metrics.port" (cortex {
    metrics.port = 31313;
  });
  metrics-on-another-address = well (cortex {
    address = "127.0.0.2";
    metrics.port = 31313;
  });
  node-on-the-gateway's-port = fails "services.neuron.port = 31313 is taken" {
    imports = [
      gateway
      (neuron { port = 31313; })
    ];
  };
  node-on-the-metrics'-port = fails "services.neuron.port = 31314 is taken" {
    imports = [
      gateway
      (neuron {
        address = "0.0.0.0";
        insecure = true;
        port = 31314;
      })
    ];
  };
  public-node = fails "services.neuron.address = \"192.168.1.20\" is reached" (neuron {
    address = "192.168.1.20";
  });
  node-firewall-for-nothing = fails "services.neuron.openFirewall opens port 13131" (neuron {
    openFirewall = true;
  });
  models-at-home = fails "services.neuron.modelDirs and cacheDir must not lie in /home" (neuron {
    modelDirs = [ "/home/me/models" ];
  });
  cache-at-roots-home = fails "services.neuron.modelDirs and cacheDir must not lie in /home" (neuron {
    cacheDir = "/root/models";
  });
  cuda-without-driver = fails "services.neuron.package is built for CUDA, and this machine has no" (
    { pkgs, ... }:
    neuron {
      package = pkgs.coreutils // {
        cudaSupport = true;
      };
    }
  );
  cuda-with-driver = well (
    { pkgs, ... }:
    {
      imports = [
        (neuron {
          package = pkgs.coreutils // {
            cudaSupport = true;
          };
        })
      ];
      services.xserver.videoDrivers = [ "nvidia" ];
      hardware.nvidia.open = true;
    }
  );
  cuda-without-gpus = fails "services.neuron.package is built for CUDA, and services.neuron.gpus" (
    { pkgs, ... }:
    {
      imports = [
        (neuron {
          package = pkgs.coreutils // {
            cudaSupport = true;
          };
          gpus = "none";
        })
      ];
      services.xserver.videoDrivers = [ "nvidia" ];
      hardware.nvidia.open = true;
    }
  );

  unknown-option = refused (cortex {
    nodes = { };
  });
  unknown-option-of-a-node = refused (neuron {
    models_dir = "/srv";
  });
  port-too-large = refused (cortex {
    port = 65536;
  });
  port-as-text = refused (neuron {
    port = "13131";
  });
  name-for-an-address = refused (cortex {
    address = "localhost";
  });
  neuron-without-endpoint = refused (cortex {
    neurons.hermes = { };
  });
  endpoint-with-a-path = refused (cortex {
    neurons.hermes.endpoint = "http://hermes:13131/v1";
  });
  token-in-the-configuration = refused (cortex {
    neurons.atlas.token = "secret";
  });
  token-in-the-store = refused (
    { pkgs, ... }: cortex { neurons.atlas.tokenFile = "${pkgs.coreutils}/token"; }
  );
  token-of-hugging-face-in-the-store = refused (
    { pkgs, ... }: neuron { huggingFaceTokenFile = "${pkgs.coreutils}/token"; }
  );
  relative-token-file = refused (cortex {
    neurons.atlas.tokenFile = "atlas.token";
  });
  alias-of-two = refused (cortex {
    aliases.gpt = [
      "a"
      "b"
    ];
  });
  gpu-by-name = refused (neuron {
    gpus = "first";
  });
  negative-drain = refused (cortex {
    settings.timeouts.drain = -1;
  });
  # Nix would open one port in the firewall and the program take another.
  port-beside-the-option = refused (cortex {
    settings.gateway.listen = "127.0.0.1:80";
  });
  function-in-settings = refused (cortex {
    settings.eviction.strategy = x: x;
  });
}
