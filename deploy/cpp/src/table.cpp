#include "table.h"

#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstring>

#include "folder.h"

namespace recon_ad {
namespace {

// Escapes bytes of a file's name that are not UTF-8, in a form that JSON can read.
std::string escaped(const std::string& text) {
  std::string made;
  std::size_t at = 0;
  for (const char32_t code : decoded_name(text)) {
    if (code >= 0xDC80 && code <= 0xDCFF) {
      char escape[8];
      std::snprintf(escape, sizeof escape, "\\u%04x", unsigned(code));
      made += escape;
      ++at;
      continue;
    }
    const std::size_t n = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    made += text.substr(at, n);
    at += n;
  }
  return made;
}

// Returns the text as a cell that no spreadsheet takes for a formula, as `plain_cell` in
// recon_ad/runtime/files.py does: full-width signs count, and other separators than the comma.
std::string plain(const std::string& text) {
  std::string made;
  bool first = true;  // in a cell
  for (std::size_t at = 0; at < text.size(); ++at) {
    const char c = text[at];
    const std::string wide = text.substr(at, 3);
    const bool formula = c == '=' || c == '+' || c == '-' || c == '@' || wide == "\uff1d" ||
                         wide == "\uff0b" || wide == "\uff0d" || wide == "\uff20";
    if (first && formula) made += '\'';
    const bool separates = c == ';' || c == '|' || c == '\t' || c == '\r' || c == '\n';
    first = separates || (first && (c == '"' || c == ' '));
    made += c;
  }
  return !text.empty() && std::strchr("\t\r\n", text[0]) ? "'" + made : made;
}

std::string csv_field(const std::string& content) {
  const std::string text = plain(content);
  if (text.find_first_of(",\"\r\n") == std::string::npos) return escaped(text);
  std::string quoted = "\"";
  for (const char c : text) quoted += c == '"' ? "\"\"" : std::string(1, c);
  return escaped(quoted + '"');
}

std::string json_string(const std::string& text) {
  std::string quoted = "\"";
  for (const char c : text) {
    const std::string special = "\"\\\n\r\t\f\b";
    const std::size_t which = special.find(c);
    if (which != std::string::npos) {
      quoted += {'\\', "\"\\nrtfb"[which]};
    } else if (static_cast<unsigned char>(c) < 0x20) {
      char escape[8];
      std::snprintf(escape, sizeof escape, "\\u%04x", unsigned(c));
      quoted += escape;
    } else {
      quoted += c;
    }
  }
  return escaped(quoted + '"');
}

std::string json_number(double number) {
  if (std::isnan(number)) return "NaN";
  if (std::isinf(number)) return number > 0 ? "Infinity" : "-Infinity";
  return shortest(number);
}

std::string json_number(const std::optional<double>& number) {
  return number ? json_number(*number) : "null";
}

std::string word(bool value) { return value ? "true" : "false"; }

}  // namespace

std::string shortest(double number) {
  if (std::isnan(number)) return "nan";
  if (std::isinf(number)) return number > 0 ? "inf" : "-inf";
  char text[32];
  const auto end = std::to_chars(text, text + sizeof text, std::fabs(number),
                                 std::chars_format::scientific);
  const std::string written(text, end.ptr);  // d.ddde±dd
  const std::size_t e = written.find('e');
  const int exponent = std::stoi(written.substr(e + 1));
  std::string digits = written.substr(0, 1);
  if (e > 2) digits += written.substr(2, e - 2);
  const std::string sign = std::signbit(number) ? "-" : "";
  if (exponent < -4 || exponent >= 16) {  // range where Python's repr uses powers of ten
    std::string mantissa = digits.substr(0, 1);
    if (digits.size() > 1) mantissa += "." + digits.substr(1);
    char power[8];
    std::snprintf(power, sizeof power, "e%+03d", exponent);
    return sign + mantissa + power;
  }
  if (exponent < 0) return sign + "0." + std::string(std::size_t(-exponent - 1), '0') + digits;
  const std::size_t whole = std::size_t(exponent) + 1;
  if (digits.size() <= whole) return sign + digits + std::string(whole - digits.size(), '0') + ".0";
  return sign + digits.substr(0, whole) + "." + digits.substr(whole);
}

std::string csv_header() {
  return "path,score,threshold,anomalous,regions,error,defect_probability,normalised_score\n";
}

std::string csv_row(const Row& row) {
  std::string line = csv_field(row.path) + ",";
  if (const auto& told = row.judgement) {
    line += shortest(told->score) + "," + shortest(told->threshold) + "," +
            word(told->anomalous) + "," + std::to_string(told->regions) + ",";
  } else {
    line += ",,,,";
  }
  line += csv_field(row.error) + ",";
  const Judgement none{};
  const Judgement& last = row.judgement ? *row.judgement : none;
  if (last.defect_probability) line += shortest(*last.defect_probability);
  line += ",";
  if (last.normalised_score) line += shortest(*last.normalised_score);
  return line + "\n";
}

std::string json_row(const Row& row) {
  const std::string start = "{\"path\": " + json_string(row.path);
  if (const auto& told = row.judgement) {
    return start + ", \"score\": " + json_number(told->score) +
           ", \"threshold\": " + json_number(told->threshold) +
           ", \"anomalous\": " + word(told->anomalous) +
           ", \"regions\": " + std::to_string(told->regions) +
           ", \"error\": null, \"defect_probability\": " + json_number(told->defect_probability) +
           ", \"normalised_score\": " + json_number(told->normalised_score) + "}\n";
  }
  return start + ", \"score\": null, \"threshold\": null, \"anomalous\": null, \"regions\": null, "
         "\"error\": " + json_string(row.error) +
         ", \"defect_probability\": null, \"normalised_score\": null}\n";
}

}  // namespace recon_ad
