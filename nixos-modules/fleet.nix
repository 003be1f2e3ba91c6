# A whole fleet in one file: a gateway and two nodes. Each attribute is a NixOS module; give it to
# lib.nixosSystem together with `nixosModules.default` of this flake, as this flake does itself.
let
  network = {
    # In place of the hardware configuration of each machine.
    boot.loader.grub.device = "/dev/sda";
    fileSystems."/" = {
      device = "/dev/sda1";
      fsType = "ext4";
    };
    system.stateVersion = "26.05";
  };
  # What a node says about itself is the same for all of them.
  node = name: address: {
    imports = [ network ];
    networking.hostName = name;
    services.neuron = {
      enable = true;
      inherit address;
      openFirewall = true;
      # Only who sends this token is obeyed.
      tokenFile = "/run/secrets/node-token";
      modelDirs = [ "/srv/models" ];
    };
  };
in
{
  gateway = {
    imports = [ network ];
    networking.hostName = "gateway";
    services.cortex = {
      enable = true;
      address = "192.168.1.10";
      openFirewall = true;
      # Made by `cortex keys create`: only who has a key may ask.
      keysFile = "/run/secrets/cortex-keys";

      neurons = {
        atlas = {
          endpoint = "http://192.168.1.20:13131";
          tokenFile = "/run/secrets/node-token";
        };
        hermes = {
          endpoint = "http://192.168.1.21:13131";
          tokenFile = "/run/secrets/node-token";
        };
      };
      models = {
        "qwen3-8b" = {
          source = "hf:Qwen/Qwen3-8B-GGUF";
          quant = "Q4_K_M";
          preferred_on = [ "atlas" ];
          keep_alive_secs = 3600;
          options.context = 32768;
        };
        "bge-m3" = {
          source = "/srv/models/bge-m3-Q8_0.gguf";
          pinned_on = [ "hermes" ];
          capabilities = [ "embedding" ];
        };
      };
      aliases = {
        "claude-*" = "qwen3-8b";
        "text-embedding-3-small" = "bge-m3";
      };
      settings.eviction.strategy = "cost";
    };
  };

  atlas = node "atlas" "192.168.1.20";

  hermes = {
    imports = [ (node "hermes" "192.168.1.21") ];
    # This one has little memory: shorter conversations, and fewer of them at once.
    services.neuron.settings.harness.llamacpp = {
      context = 4096;
      parallel = 1;
    };
  };
}
