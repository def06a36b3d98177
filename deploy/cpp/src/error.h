#pragma once

#include <stdexcept>

namespace recon_ad {

// A user's mistake or a broken file. The text is one sentence: what is wrong, where, what to do.
class UserError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace recon_ad
